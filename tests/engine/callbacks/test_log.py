"""The log's rows: which steps, which values, and that they are those of the step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor

import darkit
from darkit.engine.callbacks import StepEvaluate, StepLog
from darkit.errors import ConfigError
from darkit.runs.log import read_log
from darkit.runs.media import read_media, read_medium
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import CountingMLP, LossMLP, hand_loop, in_order, made, run_names, train, xy


def test_alone_it_writes_the_rows_of_a_stock_training(folder: Path) -> None:
    module = Foreign()
    stock_fit(module, StepLog(folder), max_steps=6)
    log = read_log(folder / "train_log.csv")
    assert log.columns == ["step", "epoch", "time", "lr", "train_loss", "val_loss", "absolute"]
    assert log["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert log["epoch"].to_list() == [0, 0, 0, 0, 1, 1]
    assert log["train_loss"].to_list() == module.losses
    assert log["lr"].to_list() == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    assert log["time"].is_sorted()


def test_where_gradients_are_accumulated_a_row_is_a_step_and_shows_the_last_batchs_loss(folder: Path) -> None:
    module = Foreign()
    stock_fit(module, StepLog(folder), max_steps=3, accumulate_grad_batches=2)
    log = read_log(folder / "train_log.csv")
    assert log["step"].to_list() == [1, 2, 3]
    assert log["train_loss"].to_list() == pytest.approx(module.losses[1::2], rel=1e-6)


def test_what_was_logged_before_an_exception_is_there(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        stock_fit(Foreign(fail_at=4), StepLog(folder))
    assert read_log(folder / "train_log.csv")["step"].to_list() == [1, 2, 3, 4]


def test_a_second_training_continues_in_the_same_file(folder: Path) -> None:
    log = StepLog(folder)
    stock_fit(Foreign(), log, max_steps=2)
    stock_fit(Foreign(), log, max_steps=2)
    assert read_log(folder / "train_log.csv")["step"].to_list() == [1, 2, 1, 2]


def test_rows_come_every_so_many_steps_and_where_it_was_evaluated_and_at_the_end(folder: Path) -> None:
    stock_fit(Foreign(), StepEvaluate(in_order(8), 3), StepLog(folder, 4), max_steps=10)
    assert read_log(folder / "train_log.csv")["step"].to_list() == [3, 4, 6, 8, 9, 10]


def test_an_evaluation_without_a_loss_is_logged_too() -> None:
    class Counts(LossMLP):
        def validation_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
            return {"said": darkit.Text("looked")} if self.only_media else {"accuracy": 0.5}

    settings: dict[str, Any] = {"eval_step_interval": 2, "log_step_interval": 5, "max_step": 6}
    for only_media in (False, True):
        model = made(Counts)
        model.only_media = only_media
        run = train(model, xy(), xy(), **settings)
        assert run.log()["step"].to_list() == [2, 4, 5, 6]
        if only_media:
            assert [(one.key, one.step) for one in read_media(run.path)] == [("val_said", step) for step in (2, 4, 6)]
        else:
            assert run.log()["val_accuracy"].to_list() == [0.5, 0.5, None, 0.5]


def test_a_value_of_the_training_step_is_none_of_an_evaluation_whatever_its_name() -> None:
    class Estimates(LossMLP):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
            return self(*batch) | {"val_est": 0.5}

    run = train(made(Estimates), xy(), max_step=6, log_step_interval=4)
    assert run.log()["step"].to_list() == [4, 6]


def test_the_last_step_of_the_last_epoch_is_logged_though_only_epochs_are_planned(folder: Path) -> None:
    stock_fit(Foreign(), StepLog(folder, 3), max_epochs=2)
    assert read_log(folder / "train_log.csv")["step"].to_list() == [3, 6, 8]


def test_log_step_interval_of_a_run_thins_its_log() -> None:
    run = train(made(), xy(), max_step=11, log_step_interval=4)
    assert run.log()["step"].to_list() == [4, 8, 11]


def test_a_runs_losses_are_those_of_a_hand_written_loop() -> None:
    ours, theirs = made(), made()
    run = train(ours, in_order(), xy(), optimizer="sgd", lr=0.1, max_step=8, eval_step_interval=4)
    losses = hand_loop(theirs, list(in_order()) * 2, torch.optim.SGD(theirs.parameters(), lr=0.1, fused=True))
    log = run.log()
    assert log["train_loss"].to_list() == losses
    with torch.no_grad():
        expected = (theirs(xy()[0]) - xy()[1]).square().mean().item()
    assert log["val_loss"].to_list()[:3] == [None] * 3
    assert log["val_loss"][-1] == pytest.approx(expected, rel=1e-6)


def test_accumulated_batches_are_logged_as_their_mean() -> None:
    run = train(made(LossMLP), in_order(), max_step=2, gradient_accumulation_steps=2, optimizer="sgd", lr=0.0)
    model = made(LossMLP)
    values = [{key: value.item() for key, value in model(*batch).items()} for batch in in_order()]
    log = run.log()
    for column, key in (("train_loss", "loss"), ("absolute", "absolute")):
        means = [(values[0][key] + values[1][key]) / 2, (values[2][key] + values[3][key]) / 2]
        assert log[column].to_list() == pytest.approx(means, rel=1e-6)


def test_values_from_a_step_are_those_of_that_step_even_if_the_model_changes_them_in_place() -> None:
    run = train(made(CountingMLP), xy(), max_step=200, eval_step_interval=0)
    assert run.log()["calls"].to_list() == list(range(1, 201))


def test_a_buffer_that_a_callback_adds_is_logged_as_it_was_at_the_step() -> None:
    class Adds(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
            outputs["live"] = pl_module.module.calls
            outputs["row"] = pl_module.module.calls.reshape(1)

    run = train(made(CountingMLP), xy(), max_step=200, eval_step_interval=0, callbacks=[Adds()])
    assert run.log()["live"].to_list() == run.log()["row"].to_list() == list(range(1, 201))


def test_a_value_that_first_comes_later_is_a_column_all_the_same() -> None:
    class Late(CountingMLP):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
            values = super().training_step(batch)
            return values | {"late": 7} if self.calls == 4 else values

    log = train(made(Late), xy()).log()
    assert log["late"].to_list() == [None, None, None, 7, None, None]
    assert log["step"].to_list() == [1, 2, 3, 4, 5, 6]


def test_what_a_step_returns_does_not_set_the_clock() -> None:
    class Liar(LossMLP):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
            return super().forward(x, y) | {"step": 99, "epoch": 99, "time": 0.0, "lr": 99.0}

    log = train(made(Liar), xy(), max_step=3, lr=0.5).log()
    assert log["step"].to_list() == [1, 2, 3]
    assert log["epoch"].to_list() == [0, 0, 0]
    assert log["lr"].to_list() == [0.5] * 3
    assert log["time"].min() > 1e9


@dataclass
class Columns:
    step: int
    train_loss: float
    mine: float = 0.0


@pytest.mark.parametrize("fieldnames", [Columns, Columns(0, 0.0)], ids=["class", "instance"])
def test_log_fieldnames_are_the_only_columns(fieldnames: Any) -> None:
    run = train(made(LossMLP), xy(), xy(), log_fieldnames=fieldnames, eval_step_interval=2)
    assert run.log().columns == ["step", "train_loss", "mine"]
    assert run.log()["step"].to_list() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("wrong", [["step"], {"step": int}, 3, "step"])
def test_log_fieldnames_that_are_no_dataclass_are_refused_and_leave_nothing(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="log_fieldnames must be a dataclass"):
        train(made(), xy(), log_fieldnames=wrong)
    assert run_names() == []


def test_in_a_process_that_does_not_write_nothing_is_written() -> None:
    stock_fit(Foreign(), StepLog(None))


def test_a_user_callback_adds_columns_before_the_row_is_written() -> None:
    class Own(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
            outputs["twice"] = 2 * trainer.global_step

    assert train(made(), xy(), callbacks=[Own()]).log()["twice"].to_list() == [2, 4, 6, 8, 10, 12]


class Showing(torch.nn.Module):
    """Returns media with its loss, of which the first of a step or of an evaluation is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        self.seen += self.training
        loss = (self.layer(x) - y).square().mean()
        text = darkit.Text(f"{'train' if self.training else 'val'} {self.seen}")
        return {"loss": loss, "mae": loss.detach().sqrt(), "said": text, "logits": torch.ones(3, 4)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_media_of_a_step_are_logged_with_its_row_and_cut_when_it_is_repeated(accumulation: int) -> None:
    data = [{"x": torch.randn(2), "y": torch.zeros(1)} for _ in range(8)]
    settings: dict[str, Any] = {
        "device": "cpu",
        "batch_size": 2,
        "log_step_interval": 2,
        "eval_step_interval": 3,
        "save_step_interval": 4,
        "gradient_accumulation_steps": accumulation,
        "tensorboard": False,
        "name": "shows",
    }
    darkit.fit(Showing(), data, data, max_step=5, **settings)
    run = darkit.fit(Showing(), data, data, max_step=6, resume="shows:iter-4-ckpt", **settings | {"name": None})
    said = [(one.key, one.step, read_medium(run.path, one).decode()) for one in read_media(run.path)]
    first = {step: (step - 1) * accumulation + 1 for step in range(1, 7)}
    assert [one for one in said if one[0] == "said"] == [
        *(("said", step, f"train {first[step]}") for step in (2, 3, 4)),
        ("said", 6, f"train {first[2]}"),
    ]
    assert [one[:2] for one in said if one[0] == "val_said"] == [("val_said", 3), ("val_said", 6)]
    assert run.log().columns == ["step", "epoch", "time", "lr", "train_loss", "val_loss", "mae", "val_mae"]


def test_a_callback_may_add_a_figure_and_a_stock_trainer_keeps_it(folder: Path) -> None:
    from matplotlib.figure import Figure

    class Draws(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
            outputs["drawn"] = Figure()

    stock_fit(Foreign(), Draws(), StepLog(folder), max_steps=2)
    assert [(one.kind, one.key, one.step) for one in read_media(folder)] == [
        ("figure", "drawn", 1),
        ("figure", "drawn", 2),
    ]
