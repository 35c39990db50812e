"""A loss that is not finite: reported with its step, in the log, and never in a checkpoint."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import darkit
from darkit.engine.callbacks import LossGuard, StepCheckpoint, StepLog
from darkit.engine.log.rows import RowStream
from darkit.errors import NonFiniteLossError
from darkit.runs.log import CsvLog, read_log
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import MLP, Explode, made, train, xy


def test_alone_it_stops_a_stock_training_and_names_the_step() -> None:
    module = Foreign(nan_at=2)
    with pytest.raises(NonFiniteLossError, match=r"The loss is not finite at step 3 \(nan\)"):
        stock_fit(module, LossGuard())
    assert len(module.losses) == 3


def test_alone_it_may_warn_once_and_continue(caplog: pytest.LogCaptureFixture) -> None:
    module = Foreign(nan_at=2)
    with caplog.at_level(logging.WARNING):
        stock_fit(module, LossGuard("warn"))
    told = [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]
    assert told == ["The loss is not finite at step 3 (nan); continuing because nan_policy is 'warn'."]
    assert len(module.losses) == 6


def test_after_the_log_and_before_the_checkpoint_the_row_is_there_and_the_checkpoint_is_not(folder: Path) -> None:
    with pytest.raises(NonFiniteLossError):
        stock_fit(Foreign(nan_at=2), StepLog(folder), LossGuard(), StepCheckpoint(folder, 1))
    assert read_log(folder / "train_log.csv")["step"].to_list() == [1, 2, 3]
    assert sorted(path.name for path in folder.glob("*.pth")) == ["iter-1-ckpt.pth", "iter-2-ckpt.pth"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_run_stops_with_the_step_named_the_row_logged_and_the_last_finite_checkpoint_kept(value: float) -> None:
    class Bad(Explode):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss = super().training_step(batch)
            return loss if bool(torch.isfinite(loss)) else (loss.nan_to_num() + 1) * value

    with pytest.raises(NonFiniteLossError, match=r"not finite at step 5 .*A smaller learning rate"):
        train(made(Bad, at=5), xy(), name="bad", max_step=9, save_step_interval=1)
    run = darkit.load("bad")
    assert run.status == "crashed"
    assert run.details.step == 5
    assert "not finite at step 5" in run.details.reason
    losses = run.log()["train_loss"].to_list()
    assert len(losses) == 5
    assert all(map(math.isfinite, losses[:4]))
    assert losses[4] == value or math.isnan(value)
    assert math.isnan(losses[4]) == math.isnan(value)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1, 2, 3, 4]
    state = torch.load(run.latest_checkpoint().path, weights_only=True)["state_dict"]  # type: ignore[union-attr]
    assert all(bool(torch.isfinite(weight).all()) for weight in state.values())


def test_a_run_that_only_warns_goes_on_to_its_end_and_saves_it(caplog: pytest.LogCaptureFixture) -> None:
    run = train(made(Explode, at=3), xy(), nan_policy="warn", save_step_interval=2)
    assert run.status == "finished"
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4, 6]
    assert sum("not finite" in record.getMessage() for record in caplog.records) == 1


class Overflows(MLP):
    """A finite loss whose gradient is not: the square root at nothing."""

    def __init__(self, at: int = 3) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.calls += 1
        x, y = batch
        loss = (self.layers(x) - y).square().mean()
        return loss + (self.layers(x) * 0).abs().sum().sqrt() if self.calls == self.at else loss


def test_weights_that_a_finite_loss_has_spoiled_are_not_saved_either() -> None:
    with pytest.raises(NonFiniteLossError, match=r"The weight '.*' is not finite after step 3"):
        train(made(Overflows), xy(), name="spoiled", save_step_interval=1, optimizer="sgd")
    assert [checkpoint.step for checkpoint in darkit.load("spoiled").checkpoints()] == [1, 2]


def test_frozen_weights_and_buffers_may_hold_what_they_like() -> None:
    class Masked(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((2,), -math.inf))
            self.frozen = nn.Parameter(torch.tensor(math.nan), requires_grad=False)

    assert train(made(Masked), xy(), loss=torch.nn.functional.mse_loss).status == "finished"


def test_with_a_logs_thread_check_reports_the_step_recorded_on_the_device(tmp_path: Path) -> None:
    stream = RowStream(CsvLog(tmp_path / "log.csv"))
    guard = LossGuard("stop", stream)
    assert guard.check in stream.watches
    guard.check()
    stream.close()


def test_outputs_without_a_loss_are_none_of_its_business() -> None:
    stock_fit(Foreign(skip_at=1), LossGuard())


def test_a_check_of_weights_names_the_first_bad_one() -> None:
    model: Any = made()
    guard = LossGuard()
    guard.check_weights(model, 1)
    with torch.no_grad():
        model.layers[2].weight[0, 3] = math.inf
    with pytest.raises(NonFiniteLossError, match=r"The weight 'layers\.2\.weight' is not finite after step 7"):
        guard.check_weights(model, 7)
