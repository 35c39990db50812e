"""Early stopping: after which values, with which reason, in a stock trainer, and exactly so when resumed."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import EarlyStopping

from darkit.engine.callbacks import EarlyStop, StepEvaluate
from darkit.engine.callbacks.early_stop import describe_stop
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.errors import ConfigError
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import in_order, made, run_names, train, xy


class Says(lightning.Callback):
    """Puts given values into the outputs of the evaluated steps, as a callback of one's own may."""

    def __init__(self, values: list[float], every: int = 2) -> None:
        self.values, self.every = values, every

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
        step = trainer.global_step
        if "val_loss" in outputs:
            outputs["val_score"] = self.values[min((step - 1) // self.every, len(self.values) - 1)]


def run_with(values: list[float], *callbacks: lightning.Callback, **options: Any) -> Any:
    settings = {"monitor": "val_score", "mode": "min", "eval_step_interval": 2, "max_step": 30, **options}
    return train(made(), xy(), xy(), callbacks=[Says(values), *callbacks], **settings)


@pytest.mark.parametrize(
    ("values", "mode", "patience", "ends_at"),
    [
        ([5, 4, 3, 3, 3, 1], "min", 2, 10),
        ([5, 4, 3, 3.5, 2, 2, 2, 2], "min", 3, 16),
        ([1, 2, 3, 2, 1], "max", 1, 8),
        ([1, 2, float("nan"), 3, float("inf"), float("nan")], "max", 2, 12),
        ([float("nan")], "min", 3, 6),
        ([*range(20, 0, -1)], "min", 1, 30),
    ],
)
def test_it_ends_after_so_many_values_that_are_not_better(
    values: list[float], mode: str, patience: int, ends_at: int
) -> None:
    run = run_with(values, mode=mode, early_stop_patience=patience)
    assert (run.status, run.details.step) == ("finished", ends_at)
    assert run.latest_checkpoint().step == ends_at
    assert run.details.reason.startswith(f"Stopped early at step {ends_at}: the last") == (ends_at < 30)


def test_the_reason_names_the_best_and_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with([5, 4, 3, 3, 3], early_stop_patience=2)
    reason = "Stopped early at step 10: the last 2 values of val_score did not improve (the best is 3 at step 6)."
    assert run.details.reason == reason
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [3, 6, 9])
def test_a_resumed_run_ends_at_the_same_step_with_the_same_content(stop_at: int) -> None:
    class StopAt(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
            trainer.should_stop = trainer.global_step == stop_at

    values = [5, 4, 3, 3, 4, 3, 1]
    straight = run_with(values, early_stop_patience=3, name="straight")
    assert run_with(values, StopAt(), early_stop_patience=3, name="broken").details.step == stop_at
    resumed = run_with(values, early_stop_patience=3, name="broken", resume=True)
    assert straight.details.step == resumed.details.step == 12
    one, other = (read_checkpoint(run.latest_checkpoint()) for run in (straight, resumed))
    assert [*differences(one["callbacks"], other["callbacks"])] == []
    assert [*differences(one["state_dict"], other["state_dict"])] == []


def test_a_run_that_was_ended_is_complete_until_it_gets_more_patience() -> None:
    values = [3, 3, 3, 2, 2, 2, 2]
    run = run_with(values, early_stop_patience=1, name="run")
    assert run.details.step == 4
    assert run_with(values, early_stop_patience=1, name="run", resume="auto").details.step == 4
    with pytest.raises(ConfigError, match=r"has ended. Stopped early at step 4: .* larger early_stop_patience, or 0"):
        run_with(values, early_stop_patience=1, name="run", resume=True)
    assert run_with(values, early_stop_patience=3, name="run", resume=True).details.step == 14
    assert run_with(values, name="run", resume=True).details.step == 30


def test_a_metric_of_the_training_counts_every_eval_step_interval() -> None:
    run = train(made(), xy(), lr=0.0, monitor="train_loss", early_stop_patience=2, eval_step_interval=4, max_step=40)
    losses = run.log()["train_loss"].to_list()
    best, waited = float("inf"), 0
    for step in range(4, 41, 4):
        waited = 0 if losses[step - 1] < best else waited + 1
        best = min(best, losses[step - 1])
        if waited == 2:
            break
    assert run.details.step == step


def test_a_metric_that_cannot_come_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"early_stop_patience=2 needs monitor='val_loss', but there is no validation"
    ):
        train(made(), xy(), early_stop_patience=2)
    assert run_names() == []
    with pytest.raises(ConfigError, match=r"monitor 'val_los' is not among the metrics of step 2\. .*'val_loss'"):
        train(made(), xy(), xy(), early_stop_patience=2, monitor="val_los", eval_step_interval=2)
    with pytest.raises(ConfigError, match=r"monitor 'accuracy' is not among the metrics of step 2"):
        train(made(), xy(), early_stop_patience=2, monitor="accuracy", eval_step_interval=2)


def test_in_a_stock_trainer_it_stops_where_lightnings_does() -> None:
    class Logging(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = super().training_step(batch, batch_idx)
            self.log("loss_of_step", output["loss"])
            return output

    class EveryStep(EarlyStopping):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
            self._run_early_stopping_check(trainer)

    theirs = EveryStep("loss_of_step", patience=3, min_delta=0.0, check_on_train_epoch_end=False)
    reference = stock_fit(Logging(), theirs, max_steps=50, log_every_n_steps=1)
    trainer = stock_fit(Logging(), ours := EarlyStop(3, "train_loss"), max_steps=50)
    assert trainer.global_step == reference.global_step < 50
    assert ours.best == pytest.approx(float(theirs.best_score))
    with_evaluation = stock_fit(Foreign(), StepEvaluate(in_order(8), 1), EarlyStop(1), max_steps=50)
    assert with_evaluation.global_step < 50


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": 1.5}, {"patience": 1, "mode": "most"}])
def test_wrong_arguments_are_refused_in_the_constructor(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"patience must be|mode must be"):
        EarlyStop(**wrong)


def test_the_reason_counts_one_value_as_one() -> None:
    state = {"monitor": "val_loss", "best": 0.5, "best_step": 8, "waited": 1}
    assert describe_stop(state, 10) == (
        "Stopped early at step 10: the last value of val_loss did not improve (the best is 0.5 at step 8)."
    )


@pytest.mark.parametrize("best", [None, 0.5])
def test_what_was_waited_for_another_metric_does_not_count(best: float | None) -> None:
    state = {"monitor": "val_loss", "mode": "min", "best": best, "best_step": 3, "waited": 2}
    same, other = EarlyStop(3), EarlyStop(3, "val_accuracy", "max")
    for callback in (same, other):
        callback.load_state_dict(dict(state))
    assert (same.best, same.waited) == (best, 2)
    assert (other.best, other.waited) == (None, 0)
