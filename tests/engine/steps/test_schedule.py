"""When a schedule is stepped: by step, by epoch or by a metric; against a plain loop and a stock trainer; resumed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import lightning
import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.errors import ConfigError
from tests.engine.parts import MLP, Stream, equal_weights, in_order, made, run_names, train, xy

SGD = functools.partial(torch.optim.SGD, lr=0.125, momentum=0.5)
STEP: Callable[[Any], LRScheduler] = functools.partial(StepLR, step_size=2, gamma=0.5)
PLATEAU: Callable[[Any], LRScheduler] = functools.partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.5)


def stream() -> DataLoader[Any]:
    return DataLoader(Stream(16), batch_size=4)


def by_hand(model: nn.Module, steps: int, schedule: Any, after: Callable[[int, bool], None]) -> list[float]:
    """A plain loop over 4 batches an epoch; ``after`` is called with the step and whether it ends an epoch."""
    optimizer, rates = schedule.optimizer, []
    for step, (x, y) in enumerate([*in_order()] * (steps // 4 + 1), 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        after(step, step % 4 == 0)
        if step == steps:
            break
    return rates


@pytest.mark.parametrize(
    ("form", "interval", "frequency"),
    [
        (lambda make: make, "step", 1),
        (lambda make: (make, "step"), "step", 1),
        (lambda make: (make, "epoch"), "epoch", 1),
        (lambda make: lambda optimizer: (make(optimizer), "epoch"), "epoch", 1),
        (lambda make: {"scheduler": make}, "epoch", 1),
        (lambda make: lambda optimizer: {"scheduler": make(optimizer), "interval": "step"}, "step", 1),
        (lambda make: {"scheduler": make, "interval": "step", "frequency": 3, "name": "mine"}, "step", 3),
        (lambda make: {"scheduler": make, "interval": "epoch", "frequency": numpy.int64(2)}, "epoch", 2),
    ],
)
def test_a_schedule_is_stepped_at_the_given_interval(form: Any, interval: str, frequency: int) -> None:
    ours, theirs = made(), made()
    data = in_order if frequency == 1 else stream
    run = train(ours, data(), optimizer=SGD, scheduler=form(STEP), max_step=18)
    schedule = STEP(SGD(theirs.parameters()))

    def after(step: int, ends: bool) -> None:
        if (interval == "step" and step % frequency == 0) or (
            interval == "epoch" and ends and step % (4 * frequency) == 0
        ):
            schedule.step()

    assert run.log()["lr"].to_list() == by_hand(theirs, 18, schedule, after)
    assert equal_weights(ours, theirs)


class Theirs(lightning.LightningModule):
    def __init__(self, interval: str) -> None:
        super().__init__()
        self.model: nn.Module = made()
        self.interval = interval

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.mse_loss(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.model.parameters())
        return [optimizer], [{"scheduler": STEP(optimizer), "interval": self.interval}]


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_lightnings_dict_means_what_it_means_in_a_stock_trainer(interval: str) -> None:
    ours, theirs = made(), Theirs(interval)
    train(ours, in_order(), optimizer=SGD, scheduler={"scheduler": STEP, "interval": interval}, max_step=16)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(accelerator="cpu", max_steps=16, enable_model_summary=False, **options)
    trainer.fit(theirs, in_order())
    assert equal_weights(ours, theirs.model)


@pytest.mark.parametrize("monitor", ["val_loss", "train_loss"])
@pytest.mark.parametrize(
    "form", [lambda make: make, lambda make: {"scheduler": make, "interval": "step"}, lambda make: (make, "epoch")]
)
def test_reduce_on_plateau_is_stepped_with_each_new_value_of_its_metric(form: Any, monitor: str) -> None:
    ours, theirs = made(), made()
    options = {"eval_step_interval": 3, "monitor": monitor, "max_step": 18}
    run = train(ours, in_order(), in_order(), optimizer=SGD, scheduler=form(PLATEAU), **options)
    schedule: Any = PLATEAU(SGD(theirs.parameters()))
    rows = {row["step"]: row for row in run.log().iter_rows(named=True)}
    by_epoch, fresh = isinstance(form(PLATEAU), tuple), []

    def after(step: int, ends: bool) -> None:
        if monitor == "train_loss" or step % 3 == 0 or step == 18:
            fresh.append(rows[step][monitor])
        if fresh and (ends or not by_epoch):
            schedule.step(fresh[-1])
            fresh.clear()

    rates = by_hand(theirs, 18, schedule, after)
    assert run.log()["lr"].to_list() == rates
    assert len(set(rates)) > 1, "it was reduced"
    assert equal_weights(ours, theirs)


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("scheduler", "data", "accumulate"),
    [
        ((STEP, "epoch"), in_order, 1),
        ((STEP, "epoch"), stream, 3),
        ({"scheduler": STEP, "interval": "epoch", "frequency": 2}, xy, 1),
        ({"scheduler": STEP, "interval": "step", "frequency": 3}, xy, 1),
        (PLATEAU, xy, 3),
        ((PLATEAU, "epoch"), stream, 1),
        ({"scheduler": PLATEAU, "interval": "step", "frequency": 4}, in_order, 1),
        (functools.partial(OneCycleLR, max_lr=0.5, total_steps=18), xy, 1),
        (lambda optimizer: SequentialLR(optimizer, [ExponentialLR(optimizer, 0.5), STEP(optimizer)], [4]), xy, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_every_schedule_is_resumed_exactly(scheduler: Any, data: Any, accumulate: int) -> None:
    options: dict[str, Any] = {
        "optimizer": SGD,
        "scheduler": scheduler,
        "eval_step_interval": 3,
        "gradient_accumulation_steps": accumulate,
    }
    straight = train(made(), data(), in_order(), name="straight", max_step=18, save_step_interval=1, **options)
    expected = {checkpoint.step: read_checkpoint(checkpoint) for checkpoint in straight.checkpoints()}
    resumed = made()
    for step in (4, 7, 12, 18):

        class StopAt(lightning.Callback):
            def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any, at: int = step) -> None:
                trainer.should_stop = trainer.global_step == at

        run = train(
            resumed, data(), in_order(), name="run", max_step=18, resume="auto", callbacks=[StopAt()], **options
        )
        assert run.checkpoints()[-1].step == step
        found = read_checkpoint(run.checkpoints()[-1])
        kinds = ("state_dict", "optimizer_state_dict", "scheduler_state_dict")
        assert [*differences(*({kind: state[kind] for kind in kinds} for state in (expected[step], found)))] == []
    assert run.log()["lr"].to_list() == straight.log()["lr"].to_list()


def test_a_schedule_without_an_interval_is_stepped_by_step_and_that_is_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "StepLR is stepped after every step. (scheduler, 'epoch') steps it after every epoch."
    train(made(), in_order(), name="run", optimizer=SGD, scheduler=STEP)
    assert said in capsys.readouterr().err
    train(made(), in_order(), name="run", optimizer=SGD, scheduler=STEP, resume=True, max_step=8)
    train(made(), in_order(), optimizer=SGD, scheduler=(STEP, "step"))
    train(made(), in_order(), optimizer=SGD, scheduler="cosine", warmup_step=1)
    assert said not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, r"not int"),
        (lambda optimizer: None, r"not NoneType"),
        ((STEP, "batch"), r"must be 'step' or 'epoch', not 'batch'"),
        ({"scheduler": STEP, "interval": "epochs"}, r"not 'epochs'"),
        ((STEP, 2), r"must be or make|scheduler= must be"),
        ([STEP, STEP], r"SequentialLR"),
        ((STEP, STEP, STEP), r"SequentialLR"),
        ({"interval": "step"}, r"no key 'scheduler'"),
        ({"scheduler": STEP, "interwal": "step"}, r"unknown key 'interwal'"),
        ({"scheduler": STEP, "frequency": 0}, r"at least 1, not 0"),
        ({"scheduler": STEP, "frequency": 1.5}, r"whole number"),
        ({"scheduler": PLATEAU, "monitor": 3}, r"name of a metric, not 3"),
        (("cosine", "epoch"), r"not str"),
    ],
)
def test_an_invalid_schedule_is_refused_and_leaves_nothing(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(made(), xy(), scheduler=wrong)
    assert run_names() == []


def test_a_schedule_that_waits_for_a_metric_that_cannot_come_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs 'val_loss', but the run has no validation data"):
        train(made(), xy(), scheduler=PLATEAU)
    assert run_names() == []
    with pytest.raises(ConfigError, match=r"monitor 'val_los' is not among the metrics of step 2.*'val_loss'"):
        train(made(), xy(), xy(), scheduler=PLATEAU, monitor="val_los", eval_step_interval=2)
    lenient = {"scheduler": PLATEAU, "monitor": "val_other", "strict": False, "interval": "step"}
    assert train(made(), xy(), xy(), scheduler=lenient, eval_step_interval=2).status == "finished"


def test_a_one_cycle_that_ends_before_the_training_is_refused_also_in_a_resumed_run() -> None:
    cycle = functools.partial(OneCycleLR, max_lr=0.5)
    with pytest.raises(
        ConfigError, match=r"total_steps=8.* steps it 9 times .* max_step=9. Make it with total_steps=9"
    ):
        train(made(), xy(), optimizer=SGD, scheduler=functools.partial(cycle, total_steps=8), max_step=9)
    assert run_names() == []
    eight = functools.partial(cycle, total_steps=8)
    train(made(), xy(), name="run", optimizer=SGD, scheduler=eight, max_step=8)
    with pytest.raises(ConfigError, match=r"total_steps=8.* steps it 12 times"):
        twelve = functools.partial(cycle, total_steps=12)
        train(made(), xy(), name="run", optimizer=SGD, scheduler=twelve, max_step=12, resume=True)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (
            functools.partial(OneCycleLR, max_lr=0.5, total_steps=20),
            "total_steps=20.*steps it 6 times.*not reach its end",
        ),
        (functools.partial(CosineAnnealingLR, T_max=4), "T_max=4.*6 times.*starts to rise again"),
        (functools.partial(CosineAnnealingLR, T_max=40), "T_max=40.*6 times.*not reach its end"),
        (functools.partial(CosineAnnealingLR, T_max=6), ""),
        ((functools.partial(CosineAnnealingLR, T_max=3), "epoch"), ""),
    ],
)
def test_a_length_other_than_the_trainings_is_warned_of(
    scheduler: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(made(MLP), xy(), optimizer=SGD, scheduler=scheduler)

    assert bool(re.search(said, caplog.text)) if said else "is made for" not in caplog.text
