"""Going on: from the right step, with a log without gaps, to the weights of the straight run; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.errors import (
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
    NameInvalidError,
    RunExistsError,
    RunNotFoundError,
)
from tests.engine.parts import DataModule, equal_weights, made, run_names, train, weights_at, xy

SETTINGS: dict[str, Any] = {"scheduler": "cosine", "warmup_step": 2, "lr": 0.01}


@pytest.fixture
def broken_off() -> darkit.Run:
    """A run of ten steps, saved at every second, of which the first eight are done."""
    run = train(made(), xy(), xy(), name="run", max_step=10, save_step_interval=2, eval_step_interval=3, **SETTINGS)
    for step in (10,):
        for ending in ("pth", "json"):
            (run.path / f"iter-{step}-ckpt.{ending}").unlink()
    return run


def go_on(model: Any, **options: Any) -> darkit.Run:
    settings = {"max_step": 10, "save_step_interval": 2, "eval_step_interval": 3} | SETTINGS | options
    return train(model, xy(), xy(), **settings)


@pytest.mark.parametrize(
    "options",
    [{"name": "run", "resume": True}, {"resume": "run"}, {"resume": "run:iter-4-ckpt"}, {"resume": "run:iter-2-ckpt"}],
    ids=str,
)
def test_it_goes_on_to_the_weights_and_the_log_of_the_straight_run(
    broken_off: darkit.Run, options: dict[str, Any]
) -> None:
    straight = broken_off.log()
    final = made()
    train(final, xy(), xy(), max_step=10, eval_step_interval=3, **SETTINGS)
    model = made(seed=7)
    run = go_on(model, **options)
    assert run == broken_off
    assert equal_weights(model, final)
    assert (run.status, run.details.step) == ("finished", 10)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4, 6, 8, 10]
    log = run.log()
    assert log["step"].to_list() == list(range(1, 11))
    for column in ("epoch", "lr", "train_loss", "val_loss"):
        assert log[column].to_list() == straight[column].to_list()


def test_a_finished_run_goes_on_to_a_later_step() -> None:
    train(made(), xy(), name="longer", max_step=6)
    ours, straight = made(seed=3), made()
    run = train(ours, xy(), name="longer", resume=True, max_step=11)
    train(straight, xy(), max_step=11)
    assert equal_weights(ours, straight)
    assert run.log()["step"].to_list() == list(range(1, 12))
    assert run.details.max_step == 11


def test_under_another_name_a_new_run_starts_from_the_weights_alone(broken_off: darkit.Run) -> None:
    before = {path.name: path.read_bytes() for path in broken_off.path.iterdir() if path.is_file()}
    started = weights_at(broken_off, 4)
    model, by_hand = made(seed=7), made()
    by_hand.load_state_dict(started)
    run = train(model, xy(), name="tuned", resume="run:iter-4-ckpt", max_step=3)
    train(by_hand, xy(), max_step=3)
    assert run.name == "tuned"
    assert run.log()["step"].to_list() == [1, 2, 3]
    assert equal_weights(model, by_hand)
    assert {path.name: path.read_bytes() for path in broken_off.path.iterdir() if path.is_file()} == before


def test_auto_begins_a_run_and_goes_on_with_it_the_next_time() -> None:
    first = train(made(), xy(), name="auto", resume="auto", max_step=4)
    assert first.log()["step"].to_list() == [1, 2, 3, 4]
    ours, straight = made(seed=2), made()
    second = train(ours, xy(), name="auto", resume="auto", max_step=8)
    train(straight, xy(), max_step=8)
    assert second.log()["step"].to_list() == list(range(1, 9))
    assert equal_weights(ours, straight)


@pytest.mark.parametrize(
    "data",
    [
        lambda: DataLoader(TensorDataset(*xy()), batch_size=4, shuffle=True),
        lambda: DataLoader(TensorDataset(*xy()), batch_size=4),
        DataModule,
        lambda: {"train": xy(), "val": xy()},
    ],
    ids=["shuffled loader", "loader", "module", "dict"],
)
def test_whatever_the_data_the_middle_of_an_epoch_is_gone_on_with(data: Any) -> None:
    straight, ours = made(), made()
    train(straight, data(), max_step=11)
    train(made(), data(), name="mid", max_step=6)
    run = train(ours, data(), name="mid", resume=True, max_step=11)
    assert run.log()["epoch"].to_list() == [0] * 4 + [1] * 4 + [2] * 3
    assert equal_weights(ours, straight)


@pytest.mark.parametrize("resume", [None, False])
def test_without_resume_a_name_that_is_taken_is_refused(broken_off: darkit.Run, resume: Any) -> None:
    with pytest.raises(RunExistsError):
        go_on(made(), name="run", resume=resume)
    with pytest.raises(RunExistsError):
        train(made(), xy(), name="other") and go_on(made(), name="other", resume="run")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"resume": "rum"}, RunNotFoundError, "no run 'rum'.*did you mean 'run'"),
        ({"resume": "run:iter-5-ckpt"}, CheckpointNotFoundError, "no checkpoint 'iter-5-ckpt'.*iter-4-ckpt"),
        ({"resume": "run:nonsense"}, CheckpointNotFoundError, "no checkpoint 'nonsense'"),
        ({"resume": "../run"}, NameInvalidError, "run name"),
        ({"resume": True}, ConfigError, "no name was given"),
        ({"resume": "run", "max_step": 8}, ConfigError, "at step 8 already; .* max_step must be larger"),
        ({"resume": "run", "lr": 0.5}, ConfigError, r"lr 0\.01 -> 0\.5"),
        ({"resume": "run", "batch_size": 8}, ConfigError, "batch_size 4 -> 8"),
    ],
    ids=str,
)
def test_what_cannot_be_gone_on_with_is_one_clear_error_and_changes_nothing(
    broken_off: darkit.Run, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    before = {path.name: path.read_bytes() for path in broken_off.path.iterdir() if path.is_file()}
    with pytest.raises(error, match=said):
        go_on(made(), **options)
    assert {path.name: path.read_bytes() for path in broken_off.path.iterdir() if path.is_file()} == before
    assert run_names() == ["run"]


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(broken_off: darkit.Run) -> None:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    before = {path.name: path.read_bytes() for path in broken_off.path.iterdir() if path.is_file()}
    loss = torch.nn.functional.mse_loss
    with pytest.raises(CheckpointMismatchError, match=r"MLP does not fit this .*Other: 'layer\.weight' is missing"):
        train(Other(), xy(), loss=loss, resume="run:iter-4-ckpt", name="new")
    with pytest.raises((CheckpointMismatchError, ConfigError)):
        go_on(Other(), loss=loss, resume="run")
    assert {path.name: path.read_bytes() for path in broken_off.path.iterdir() if path.is_file()} == before
    assert run_names() == ["run"]


def test_optimizers_and_schedules_of_ones_own_go_on_too() -> None:
    def settings(model: Any) -> dict[str, Any]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        return {"optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)}

    straight, half, ours = made(), made(), made(seed=4)
    train(straight, xy(), max_step=10, **settings(straight))
    train(half, xy(), name="own", max_step=5, **settings(half))
    run = train(ours, xy(), name="own", resume=True, max_step=10, **settings(ours))
    assert equal_weights(ours, straight)
    assert run.log()["lr"].to_list() == [0.05] * 3 + [0.025] * 3 + [0.0125] * 3 + [0.00625]
