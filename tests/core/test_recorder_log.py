"""What a hand-written loop logs and evaluates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import darkit
from darkit.core import LogFieldnames, Trainer
from darkit.errors import LogError
from darkit.runs import base
from tests.core.parts import Logging, Loop, LoopConfig, loop, net, samples, saved


def test_rows_that_a_loop_logs_are_all_there_in_order() -> None:
    losses: list[float] = []

    class Keeping(Logging):
        def on_step(self, step: int, loss: Tensor) -> None:
            super().on_step(step, loss)
            losses.append(loss.item())

    loop(Keeping).train(samples(24))
    log = darkit.load("hand").log()
    assert log["step"].to_list() == list(range(6))
    assert log["train_loss"].to_list() == losses
    assert log.columns == ["step", "epoch", "time", "lr", "train_loss", "val_loss"]


def test_logging_after_the_end_appends_and_leaves_the_run_finished() -> None:
    trainer = loop(Logging)
    trainer.train(samples(24))
    ended = darkit.load("hand").details
    trainer.log(step=6, test_loss=torch.tensor(0.5))
    run = darkit.load("hand")
    assert run.details == ended
    assert run.log()["test_loss"].to_list() == [None] * 6 + [0.5]


def test_columns_that_were_fixed_stay_fixed_after_the_end() -> None:
    trainer = loop(Logging, log_fieldnames=LogFieldnames)
    trainer.train(samples(24))
    with pytest.raises(LogError, match="no column 'test_loss'"):
        trainer.log(test_loss=1)
    assert len(darkit.load("hand").log()) == 6


def test_an_unknown_column_leaves_nothing_of_a_run_that_had_not_begun() -> None:
    class Misspelt(Loop):
        def on_step(self, step: int, loss: Tensor) -> None:
            self.log(step=step, train_los=loss)

    with pytest.raises(LogError, match=r"no column 'train_los'\. Did you mean 'train_loss'"):
        loop(Misspelt, log_fieldnames=LogFieldnames).train(samples(24))
    assert darkit.runs() == []
    assert not (base() / "hand").exists()


def test_a_mistake_after_the_first_row_keeps_the_log_even_without_a_step() -> None:
    class Late(Trainer):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            self.log(step=1, train_loss=1.0)
            self.log(wrong=1)

    with pytest.raises(LogError, match="'wrong'"):
        Late(net(), LoopConfig(name="hand"), log_fieldnames=LogFieldnames).train(samples(4))
    run = darkit.load("hand")
    assert run.status == "crashed"
    assert run.log()["train_loss"].to_list() == [1.0]


def test_a_mistake_after_a_save_keeps_the_checkpoint() -> None:
    trainer = loop(log_fieldnames=LogFieldnames)
    trainer.save_pretrained()
    with pytest.raises(LogError), trainer:
        trainer.log(wrong=1)
    assert saved() == [0]
    assert darkit.load("hand").status == "crashed"


@pytest.mark.parametrize("tensorboard", [True, False])
def test_the_rows_go_to_tensorboard_as_well_if_configured(tensorboard: bool) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop(Logging, tensorboard=tensorboard).train(samples(24))
    folder = base() / "hand" / "tensorboard"
    assert folder.is_dir() == tensorboard
    if tensorboard:
        events = EventAccumulator(str(folder))
        events.Reload()
        assert [event.step for event in events.Scalars("train_loss")] == list(range(6))


class Validating(Loop):
    """Evaluates as the guide's loops do."""

    returned: list[Any]

    def on_batch(self, step: int) -> None:
        if step == 0:
            self.returned = []

    def on_step(self, step: int, loss: Tensor) -> None:
        self.returned.append(self._auto_validate([(torch.ones(3, 4), torch.ones(3, 1))]))


@pytest.mark.parametrize(("every", "due"), [(2, [2, 4, 5]), (0, [5]), (1, [1, 2, 3, 4, 5]), (9, [5])])
def test_evaluation_comes_at_the_due_steps_and_at_the_last_and_is_logged(every: int, due: list[int]) -> None:
    trainer = loop(Validating, eval_step_interval=every, max_step=5, loss=F.mse_loss)
    trainer.train(samples(20))
    assert [index + 1 for index, result in enumerate(trainer.returned) if result is not None] == due
    log = darkit.load("hand").log()
    assert log["step"].to_list() == due
    assert log["val_loss"].to_list() == [result["val_loss"] for result in trainer.returned if result]
    checkpoint = darkit.load("hand").latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.metrics == {"val_loss": trainer.returned[-1]["val_loss"]}


def test_the_evaluation_is_the_mean_over_samples_of_at_most_eval_iters_batches() -> None:
    trainer = loop(eval_iters=2, loss=F.mse_loss)
    x, y = samples(9).tensors
    batches = [(x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])]
    result = trainer.validate(batches)
    with torch.no_grad():
        assert result["val_loss"] == pytest.approx(F.mse_loss(trainer.model(x[:6]), y[:6]).item())
    trainer.config.eval_iters = 0
    with torch.no_grad():
        expected = F.mse_loss(trainer.model(x), y).item()
    assert trainer.validate(batches)["val_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("result", [0.5, torch.tensor(0.5), {"val_loss": torch.tensor([0.5])}, {"val_loss": 0.5}])
def test_an_overridden_validate_may_return_a_number_or_numbers_by_name(result: Any) -> None:
    class Own(Validating):
        def validate(self, val_dataloader: Any) -> Any:
            return result

    trainer = loop(Own, max_step=1)
    trainer.train(samples(4))
    assert trainer.returned == [{"val_loss": 0.5}]
    assert darkit.load("hand").log()["val_loss"].to_list() == [0.5]


def test_an_overridden_validate_runs_in_evaluation_mode_without_gradients_and_the_modes_are_restored() -> None:
    class Own(Validating):
        seen: tuple[bool, bool]

        def validate(self, val_dataloader: Any) -> Any:
            self.seen = (self.model.training, torch.is_grad_enabled())
            self.model.train()

    trainer = loop(Own, max_step=2)
    trainer.model.layers[1].eval()
    trainer.train(samples(8))
    assert trainer.seen == (False, False)
    assert trainer.model.layers[0].training
    assert not trainer.model.layers[1].training


def test_nothing_to_evaluate_on_evaluates_nothing() -> None:
    class Without(Loop):
        def on_step(self, step: int, loss: Tensor) -> None:
            assert self._auto_validate(None) is None

    loop(Without, max_step=1).train(samples(4))
    assert darkit.load("hand").status == "finished"
    assert len(darkit.load("hand").log()) == 0


def test_an_evaluation_whose_columns_the_log_does_not_have_adds_no_row() -> None:
    @dataclass
    class OnlyTrain:
        step: int = 0
        train_loss: float = 0.0

    trainer = loop(Validating, max_step=2, eval_step_interval=1, loss=F.mse_loss, log_fieldnames=OnlyTrain)
    trainer.train(samples(8))
    assert all(trainer.returned)
    assert (base() / "hand" / "train_log.csv").read_text() == "step,train_loss\n"
