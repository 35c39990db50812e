"""What modules and loaders do seldom: honoured as by a stock trainer, or said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning
import polars
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import darkit
from darkit.engine.data.stateful import dataloader
from darkit.engine.native.recorder import RunRecorder
from darkit.errors import ReproductionWarning
from tests.engine.native.modules import Base, same, samples, train_loader, val_loader, weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
Make = Callable[[], Any]


class Fail(lightning.Callback):
    """Fails at the end of a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if index == self.batch:
            raise RuntimeError("broke")


def stock(make: Make, loader: Make = train_loader, *callbacks: lightning.Callback) -> lightning.LightningModule:
    lightning.seed_everything(0, verbose=False)
    module = make()
    trainer = lightning.Trainer(
        max_epochs=2, log_every_n_steps=1, accelerator="cpu", callbacks=list(callbacks), **QUIET
    )
    lightning.seed_everything(0, verbose=False)
    trainer.fit(module, loader(), val_loader(), weights_only=True)
    return module


def fitted(make: Make, name: str, loader: Make = train_loader, **settings: Any) -> lightning.LightningModule:
    lightning.seed_everything(0, verbose=False)
    module = make()
    settings = {"max_epochs": 2, "device": "cpu", "log_step_interval": 1, "console": False, **settings}
    darkit.fit(module, loader(), val_loader(), name=name, **settings)
    return module


class NoOptimizer(Base):
    def configure_optimizers(self) -> None:
        return None


class LogIsAList(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.log: Any = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log.append(float(loss))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LogCounts(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def log(self, name: str, value: Any, *arguments: Any, **settings: Any) -> None:
        self.calls += 1
        super().log(name, value * 2, *arguments, **settings)


@pytest.mark.parametrize("make", [NoOptimizer, LogIsAList, LogCounts])
def test_modules_that_use_names_of_their_own_train_as_they_would(make: Make) -> None:
    plain = stock(make)
    recorded, fit = stock(make, train_loader, RunRecorder("recorded")), fitted(make, "fit")
    assert same(weights(plain), weights(recorded))
    assert same(weights(plain), weights(fit))
    assert [darkit.load(name).status for name in ("recorded", "fit")] == ["finished", "finished"]
    if make is LogIsAList:
        assert plain.log == recorded.log == fit.log
        assert len(fit.log) == 14
    if make is LogCounts:
        assert plain.calls > 14
        log = darkit.load("fit").log().filter(polars.col("loss_logged_step").is_not_null())
        assert log["loss_logged_step"].to_list() == pytest.approx([2 * loss for loss in log["train_loss"]])


class Stream(IterableDataset[Any]):
    """Samples without a length, and with a state."""

    def __init__(self) -> None:
        self.used = self.start = 0

    def __iter__(self) -> Iterator[Any]:
        data = samples()
        for index in range(self.start, 40):
            self.used = index + 1
            yield data[index]
        self.used = self.start = 0

    def state_dict(self) -> dict[str, Any]:
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["used"]


class Several(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(cross_entropy(self(part[0]), part[1]) for part in batch.values() if part is not None)


def stream() -> Any:
    return StatefulDataLoader(Stream(), batch_size=6)


def until_the_longest_ends() -> Any:
    parts = {"a": train_loader(), "b": dataloader(samples(25), batch_size=5, seed=4)}
    return CombinedLoader(parts, "max_size")


@pytest.mark.parametrize("last", [3, 4, 5])
@pytest.mark.parametrize(("make", "loader"), [(Base, stream), (Several, until_the_longest_ends)])
def test_the_place_in_the_data_is_that_of_the_batches_that_were_used(make: Make, loader: Make, last: int) -> None:
    """Lightning fetches a batch ahead of data without a length; of several loaders one may have ended before."""
    straight = stock(make, loader)
    with pytest.raises(RuntimeError, match="broke"):
        stock(make, loader, Fail(last), RunRecorder("recorded"))
    assert darkit.load("recorded").details.step == last + 1
    recorded = stock(make, loader, RunRecorder("recorded", resume="auto"))
    assert same(weights(straight), weights(recorded))
    whole = fitted(make, "whole", loader)
    with pytest.raises(RuntimeError, match="broke") as caught:
        fitted(make, "fit", loader, callbacks=[Fail(last)])
    assert any("on_train_batch_end" in note for note in caught.value.__notes__)
    assert same(weights(whole), weights(fitted(make, "fit", loader, resume=True)))


def test_the_state_of_a_loader_with_other_batches_is_said() -> None:
    state = train_loader().state_dict()
    train_loader().load_state_dict(state)
    with pytest.warns(ReproductionWarning, match=r"batch size 6 -> 5, seed 3 -> 4"):
        dataloader(samples(), batch_size=5, seed=4).load_state_dict(state)
    with pytest.warns(ReproductionWarning, match="samples 40 -> 20"):
        dataloader(samples(20), batch_size=6, seed=3).load_state_dict(state)


class LastWord(Base):
    def on_train_end(self) -> None:
        with torch.no_grad():
            self.net[0].bias.fill_(7.0)
        for logger in self.trainer.loggers:
            logger.log_metrics({"last_word": 1.0}, step=self.trainer.global_step)


def test_what_a_module_does_at_the_end_of_the_training_is_in_the_run() -> None:
    for name in ("recorded", "fit"):
        module = stock(LastWord, train_loader, RunRecorder(name)) if name == "recorded" else fitted(LastWord, name)
        run = darkit.load(name)
        content = torch.load(run.latest_checkpoint().path, weights_only=True)
        assert same(content["state_dict"], weights(module))
        assert run.log()["last_word"].drop_nulls().to_list() == [1.0]


class Live(Base):
    """Returns a buffer that it changes in place, and steps with a rate in a tensor that its schedule changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.calls += 1
        return {"loss": self.loss(batch), "calls": self.calls, "row": self.calls.reshape(1)}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=torch.tensor(1.0), capturable=False, foreach=False)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (step + 1))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def test_a_row_has_the_values_of_its_step_although_the_module_changes_them_in_place() -> None:
    fitted(Live, "run", max_epochs=20)
    log = darkit.load("run").log()
    assert log["calls"].to_list() == log["row"].to_list() == log["step"].to_list()
    assert log["lr"].to_list() == pytest.approx([1.0 / step for step in log["step"].to_list()])
