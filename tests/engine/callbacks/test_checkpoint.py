"""Checkpoints: at which steps, with which content and metrics, and what an end of any kind leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import darkit
from darkit.engine.callbacks import StepCheckpoint, StepEvaluate
from darkit.engine.callbacks.base import StepCallback
from darkit.engine.checkpoints.writer import CheckpointWriter
from darkit.errors import StorageError
from darkit.runs.checkpoints import latest_checkpoint, list_checkpoints
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import DataModule, Stream, in_order, made, train, weights_at, xy


def steps(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(folder)]


@pytest.mark.parametrize(
    ("every", "options", "expected"),
    [
        (2, {"max_steps": 5}, [2, 4, 5]),
        (2, {"max_steps": 4}, [2, 4]),
        (0, {"max_steps": 5}, [5]),
        (3, {"max_epochs": 1}, [3, 4]),
        (0, {"max_epochs": 2}, [8]),
        (2, {"max_steps": 3, "accumulate_grad_batches": 2}, [2, 3]),
        (9, {"max_epochs": 1, "max_steps": 50}, [4]),
        (1, {"fast_dev_run": 2}, [1, 2]),
    ],
)
def test_alone_it_saves_every_so_many_steps_and_the_last_one_always(
    folder: Path, every: int, options: dict[str, Any], expected: list[int]
) -> None:
    stock_fit(Foreign(), StepCheckpoint(folder, every), **options)
    assert steps(folder) == expected


def test_a_stock_trainings_checkpoint_loads_strictly_into_a_new_module_and_holds_all_it_needs(folder: Path) -> None:
    module = Foreign()
    trainer = stock_fit(module, StepCheckpoint(folder), max_steps=6)
    content = torch.load(folder / "iter-6-ckpt.pth", weights_only=True)
    again = Foreign()
    again.load_state_dict(content["state_dict"], strict=True)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))
    assert content["model_class"].endswith("stock.Foreign")
    assert content["current_step"] == 6
    optimizer = torch.optim.AdamW(again.parameters())
    optimizer.load_state_dict(content["optimizer_state_dict"])
    (expected,) = trainer.optimizers
    assert optimizer.state_dict()["param_groups"] == expected.state_dict()["param_groups"]
    assert content["scheduler_state_dict"]["last_epoch"] == 6
    assert set(content["rng"]) == {"python", "numpy", "torch", "cuda"}


def test_the_metrics_are_those_of_the_same_step_also_when_it_was_evaluated(folder: Path) -> None:
    module = Foreign()
    stock_fit(module, StepEvaluate(in_order(8), 2), StepCheckpoint(folder, 1), max_steps=4)
    for checkpoint in list_checkpoints(folder):
        manifest = json.loads((folder / f"{checkpoint.name}.json").read_text())
        assert manifest["step"] == checkpoint.step
        assert manifest["size"] == checkpoint.size
        assert checkpoint.metrics["train_loss"] == module.losses[checkpoint.step - 1]
        assert ("val_loss" in checkpoint.metrics) == (checkpoint.step % 2 == 0)


def test_a_runs_metrics_are_the_row_of_its_log() -> None:
    run = train(made(), xy(), xy(), max_step=7, eval_step_interval=3, save_step_interval=2)
    rows = {row["step"]: row for row in run.log().iter_rows(named=True)}
    saved = {checkpoint.step: checkpoint.metrics for checkpoint in run.checkpoints()}
    assert list(saved) == [2, 4, 6, 7]
    for step, metrics in saved.items():
        logged = {key: rows[step][key] for key in ("train_loss", "val_loss") if rows[step][key] is not None}
        assert {key: metrics[key] for key in logged} == logged
        assert ("val_loss" in metrics) == (step in (6, 7))


def test_the_weights_in_a_runs_checkpoint_are_those_after_its_step() -> None:
    class Snapshots(StepCallback):
        def __init__(self) -> None:
            self.weights: dict[int, Any] = {}

        def on_step(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, step: int) -> None:
            self.weights[step] = {key: value.clone() for key, value in pl_module.module.state_dict().items()}

    snapshots = Snapshots()
    run = train(made(), xy(), max_step=7, save_step_interval=1, callbacks=[snapshots])
    for step, expected in snapshots.weights.items():
        saved = weights_at(run, step)
        assert saved.keys() == expected.keys()
        assert all(torch.equal(saved[key], expected[key]) for key in saved)


@pytest.mark.parametrize("interval", [0, 2, 3, 5, 100])
@pytest.mark.parametrize("max_step", [1, 6, 7])
def test_a_runs_last_step_is_saved_whatever_the_interval(interval: int, max_step: int) -> None:
    run = train(made(), xy(), max_step=max_step, save_step_interval=interval)
    expected = {step for step in range(1, max_step + 1) if interval and step % interval == 0} | {max_step}
    assert [checkpoint.step for checkpoint in run.checkpoints()] == sorted(expected)
    assert latest_checkpoint(run.path).step == max_step  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [xy, lambda: Stream(16), DataModule], ids=["tensors", "stream", "module"])
def test_when_a_callback_stops_a_run_the_step_it_ended_at_is_saved_with_its_metrics(data: Any) -> None:
    class StopAt(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
            trainer.should_stop = trainer.global_step == 5

    run = train(made(), data(), max_step=100, callbacks=[StopAt()], save_step_interval=3)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3, 5]
    assert run.checkpoints()[-1].metrics["train_loss"] == run.log()["train_loss"][-1]
    assert run.log()["step"].to_list() == [1, 2, 3, 4, 5]
    assert run.details.step == 5


def test_after_a_keyboard_interrupt_the_last_completed_step_is_saved(folder: Path) -> None:
    class Interrupts(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    with pytest.raises(SystemExit):  # Lightning's way
        stock_fit(Foreign(), Interrupts(), StepCheckpoint(folder, 2))
    assert steps(folder) == [2, 3]


def test_an_interrupt_before_the_first_step_saves_nothing(folder: Path) -> None:
    class Early(lightning.Callback):
        def on_fit_start(self, *rest: Any) -> None:
            raise KeyboardInterrupt

    callback = StepCheckpoint(folder)
    with pytest.raises(SystemExit):
        stock_fit(Foreign(), callback, Early())
    assert not folder.exists()
    stock_fit(Foreign(), callback, max_steps=2)
    with pytest.raises(SystemExit):
        stock_fit(Foreign(), callback, Early())
    assert steps(folder) == [2]


def test_an_interrupt_inside_the_optimizer_saves_no_half_step(folder: Path) -> None:
    class Torn(torch.optim.SGD):
        calls = 0

        def step(self, closure: Any = None) -> Any:
            self.calls += 1
            if self.calls == 4:
                closure()
                with torch.no_grad():
                    next(iter(self.param_groups[0]["params"])).add_(1)
                raise KeyboardInterrupt
            return super().step(closure)

    class Breaking(Foreign):
        def configure_optimizers(self) -> Any:
            return Torn(self.parameters(), lr=0.1)

    with pytest.raises(SystemExit):
        stock_fit(Breaking(), StepCheckpoint(folder, 2))
    assert steps(folder) == [2]


def test_after_another_exception_the_last_completed_step_is_saved_and_all_files_are_whole(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stock_fit(Foreign(fail_at=3), StepCheckpoint(folder, 2))
    assert steps(folder) == [2, 3]
    assert all(checkpoint.verified for checkpoint in list_checkpoints(folder))
    assert len(list(folder.iterdir())) == 4


def test_what_before_refuses_is_not_saved(folder: Path) -> None:
    asked: list[int] = []

    def before(step: int) -> None:
        asked.append(step)
        if step == 4:
            raise ArithmeticError("not true")

    with pytest.raises(ArithmeticError):
        stock_fit(Foreign(), StepCheckpoint(folder, 2, before=before))
    assert asked == [2, 4]
    assert steps(folder) == [2]


def test_a_crash_of_a_run_keeps_its_checkpoints_and_saves_the_last_step() -> None:
    class Fails(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 5:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(made(), xy(), name="fails", save_step_interval=2, callbacks=[Fails()])
    run = darkit.load("fails")
    assert (run.status, run.latest_checkpoint().step) == ("crashed", 5)  # type: ignore[union-attr]


def test_a_save_and_an_earlier_write_that_both_fail_at_an_error_are_both_noted(folder: Path) -> None:
    class Full(CheckpointWriter):
        def save(self, *arguments: Any, **named: Any) -> Path:
            raise StorageError(28, "the last one")

        def wait(self) -> None:
            raise StorageError(28, "the one before")

    class Fails(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            if trainer.global_step == 3:
                raise ZeroDivisionError("mine")

    save = StepCheckpoint(folder, 0, writer=Full(folder))
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        stock_fit(Foreign(), save, Fails(), max_steps=6)
    notes = " ".join(caught.value.__notes__)
    assert "the last one" in notes
    assert "the one before" in notes
