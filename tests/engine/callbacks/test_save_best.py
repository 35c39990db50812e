"""The best step: it is saved, kept, named in the run's files, and its weights are in the model at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import darkit
from darkit.engine.callbacks import SaveBest, StepCheckpoint
from darkit.engine.callbacks.early_stop import EarlyStop
from darkit.errors import ConfigError
from darkit.runs.checkpoints import list_checkpoints
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.callbacks.test_early_stop import Says
from tests.engine.parts import made, run_names, train, weights_at, xy

VALUES = [5, 4, 2, 3, 2, 6]  # of steps 2, 4, 6, ...


def run_with(model: Any, **options: Any) -> darkit.Run:
    settings = {
        "monitor": "val_score",
        "eval_step_interval": 2,
        "max_step": 12,
        "load_best_at_end": True,
        "mode": "min",
        **options,
    }
    return train(model, xy(), xy(), callbacks=[Says(VALUES)], **settings)


def has_weights(model: Any, run: darkit.Run, step: int) -> bool:
    saved = weights_at(run, step)
    return all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "best", "kept"),
    [
        ({}, 6, [2, 4, 6, 12]),
        ({"keep_last": 1}, 6, [6, 12]),
        ({"keep_last": 1, "keep_best": 2}, 6, [4, 6, 12]),
        ({"mode": "max"}, 12, [2, 12]),
        ({"mode": "auto"}, 12, [2, 12]),  # a score is better when it is larger
        ({"mode": "max", "keep_last": 1, "max_step": 11}, 11, [11]),
        ({"early_stop_patience": 1, "keep_last": 1}, 6, [6, 8]),
    ],
)
def test_the_model_has_the_best_weights_and_the_run_records_their_step(
    options: dict[str, Any], best: int, kept: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = made()
    run = run_with(model, **options)
    steps = [checkpoint.step for checkpoint in run.checkpoints()]
    assert steps == kept
    assert has_weights(model, run, best)
    noted = run.info["best"]
    assert (noted["checkpoint"], noted["step"], noted["monitor"]) == (f"iter-{best}-ckpt", best, "val_score")
    assert noted["value"] == run.checkpoints()[steps.index(best)].metrics["val_score"]
    assert f"The model has the weights of step {best}, the best by val_score" in capsys.readouterr().err


def test_a_resumed_run_saves_and_loads_the_same_best_and_goes_on_from_the_last() -> None:
    straight, model = run_with(made(), name="straight"), made()
    run_with(model, name="broken", max_step=8)
    assert has_weights(model, darkit.load("broken"), 6)
    resumed = run_with(model, name="broken", resume=True)
    assert [checkpoint.step for checkpoint in resumed.checkpoints()] == [2, 4, 6, 8, 12]
    for step in (6, 12):
        one, other = weights_at(straight, step), weights_at(resumed, step)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert has_weights(model, resumed, 6)
    again = made()
    run_with(again, name="broken", resume="auto")
    assert has_weights(again, resumed, 6)


def test_a_damaged_best_is_passed_over() -> None:
    run = run_with(made(), name="run")
    path = Path(run.path) / "iter-6-ckpt.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    model = made()
    run_with(model, name="run", resume="auto")
    assert has_weights(model, run, 4)


def test_without_the_metric_there_is_no_best() -> None:
    with pytest.raises(ConfigError, match=r"load_best_at_end=True needs monitor='val_loss'"):
        train(made(), xy(), load_best_at_end=True)
    assert run_names() == []


def test_in_a_stock_trainer_the_best_steps_are_saved_besides(folder: Path) -> None:
    module = Foreign()
    save = StepCheckpoint(folder, 4)
    stock_fit(module, EarlyStop(100, "train_loss"), SaveBest(save, "train_loss"), save, max_steps=10)
    best, expected = float("inf"), {4, 8, 10}
    for step, loss in enumerate(module.losses, 1):
        if loss < best:
            best = loss
            expected.add(step)
    assert {checkpoint.step for checkpoint in list_checkpoints(folder)} == expected
