"""A metric to compare checkpoints by: refused when it never comes, and nothing is deleted for want of it."""

from __future__ import annotations

from typing import Any

import lightning
import pytest

import darkit
from darkit.engine.callbacks import RequireMetric, StepEvaluate
from darkit.errors import ConfigError
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import in_order, made, run_names, train, xy


class Adds(lightning.Callback):
    """Adds a metric at some steps."""

    def __init__(self, name: str, every: int) -> None:
        self.name, self.every = name, every

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
        if outputs and trainer.global_step % self.every == 0:
            outputs[self.name] = float(trainer.global_step)


def test_a_metric_of_evaluations_is_refused_before_the_first_step_where_there_are_none() -> None:
    for monitor in ("val_loss", "val_acc"):
        with pytest.raises(
            ConfigError, match=f"keep_best=1 needs monitor='{monitor}', but there is no validation data"
        ):
            train(made(), xy(), name="none", keep_best=1, monitor=monitor)
    assert run_names() == []


def test_a_misspelt_metric_is_refused_at_the_first_evaluation_and_that_step_is_saved() -> None:
    options: dict[str, Any] = {"keep_best": 1, "eval_step_interval": 3, "save_step_interval": 1}
    with pytest.raises(ConfigError, match=r"'val_los' is not among the metrics of step 3\. Did you mean 'val_loss'\?"):
        train(made(), xy(), xy(), name="typo", monitor="val_los", **options)
    assert [saved.step for saved in darkit.load("typo").checkpoints()] == [1, 2, 3]
    with pytest.raises(ConfigError, match="of step 3"):
        train(made(), xy(), xy(), name="more", monitor="val_acc", callbacks=[Adds("ac", 2)], **options)


def test_a_metric_of_steps_is_refused_after_the_first_one_without_it() -> None:
    with pytest.raises(ConfigError, match=r"'train_los' is not among the metrics of step 1\. .*'train_loss'\?"):
        train(made(), xy(), name="typo", keep_best=1, monitor="train_los")


def test_a_metric_that_a_callback_adds_now_and_then_is_waited_for_and_nothing_is_deleted_before() -> None:
    options: dict[str, Any] = {"max_step": 6, "save_step_interval": 1, "keep_best": 1, "mode": "max"}
    run = train(made(), xy(), xy(), monitor="bleu", callbacks=[Adds("bleu", 5)], **options)
    assert [saved.step for saved in run.checkpoints()] == [1, 2, 3, 4, 5, 6]


def test_saves_without_an_evaluation_are_kept_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    run = train(made(), xy(), xy(), max_step=8, eval_step_interval=4, save_step_interval=2, keep_best=1)
    assert [saved.step for saved in run.checkpoints()] == [2, 6, 8]
    assert [record.message for record in caplog.records if "keep_best" in record.message] == [
        "The checkpoint of step 2 has no 'val_loss', which keep_best=1 needs: such checkpoints are kept. Log it "
        "before each save, or make save_step_interval a multiple of eval_step_interval."
    ]


def test_alone_it_checks_a_lightning_module() -> None:
    stock_fit(Foreign(), StepEvaluate(in_order(8), 2), RequireMetric("val_loss"))
    stock_fit(Foreign(), RequireMetric("absolute", evaluates=False))
    with pytest.raises(ConfigError, match="of step 1"):
        stock_fit(Foreign(), RequireMetric("absolut", evaluates=False))
