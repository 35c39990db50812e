"""Hooks are called in Lightning's order, with its arguments and names, and at less cost."""

from __future__ import annotations

import sys
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.trainer import call
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.engine.lightning_hooks import quick_hooks

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
HOOKS = [
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_epoch_start", "on_train_epoch_end", "on_validation_batch_end"),
]


class Plain(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch[0]).square().mean()
        self.log("loss_logged", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch[0]).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Noting(Plain):
    """Notes each hook with the name that Lightning gives it and the number of its arguments."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(("transfer", self._current_fx_name))
        return batch


class NotingCallback(lightning.Callback):
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen


def _note(name: str, place: int) -> Any:
    def hook(self: Any, *arguments: Any, **settings: Any) -> None:
        module = self if isinstance(self, lightning.LightningModule) else arguments[1]
        self.seen.append((type(self).__name__, name, module._current_fx_name, len(arguments), sorted(settings)))

    return hook


for _name in HOOKS:
    setattr(NotingCallback, _name, _note(_name, 1))
    if hasattr(lightning.LightningModule, _name):
        setattr(Noting, _name, _note(_name, 0))


class Quick(lightning.Callback):
    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.undo = quick_hooks(trainer, pl_module)


def data(count: int = 12) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(2.0 * count).reshape(count, 2) / count), batch_size=2)


def train(module: lightning.LightningModule, *callbacks: lightning.Callback, **settings: Any) -> dict[str, Any]:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", callbacks=list(callbacks), **{"max_epochs": 2, **quiet, **settings})
    trainer.fit(module, data(), data())
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_every_hook_is_called_as_lightning_calls_it() -> None:
    found = []
    stock = call._call_lightning_module_hook
    for quick in (False, True):
        seen: list[Any] = []
        torch.manual_seed(0)
        installed = Quick()
        metrics = train(Noting(seen), NotingCallback(seen), *([installed] if quick else []))
        if quick:
            assert call._call_lightning_module_hook is not stock
            installed.undo()
        found.append((seen, metrics))
    assert call._call_lightning_module_hook is stock
    assert found[0] == found[1]
    assert len(found[0][0]) > 100


def test_a_profiler_or_a_setattr_of_the_module_keeps_lightnings_own_calls() -> None:
    class Setting(Plain):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)

    stock = call._call_lightning_module_hook
    train(Setting(), Quick())
    train(Plain(), Quick(), profiler=lightning.pytorch.profilers.SimpleProfiler())
    assert call._call_lightning_module_hook is stock


class _Counting(Plain):
    """Counts the calls of Python's functions from the 20th step to the 60th."""

    calls = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 20:
            sys.setprofile(self.note)
        elif batch_idx == 60:
            sys.setprofile(None)
        return super().training_step(batch, batch_idx) if self.trainer.loggers else self.layer(batch[0]).mean()

    def note(self, frame: Any, event: str, argument: Any) -> None:
        type(self).calls += event in ("call", "c_call")


def test_a_step_with_everything_on_takes_fewer_calls_than_lightning_with_nothing_on() -> None:
    class Recorded(_Counting):
        pass

    class Bare(_Counting):
        pass

    inputs = TensorDataset(torch.randn(160, 2))
    darkit.fit(Recorded(), inputs, batch_size=2, max_step=70, device="cpu", tensorboard=True)
    trainer = lightning.Trainer(barebones=True, accelerator="cpu", max_steps=70)
    trainer.fit(Bare(), DataLoader(inputs, batch_size=2))
    assert 0 < Recorded.calls < Bare.calls
