"""LightningModules of many kinds, and data for them: what the tests of Lightning's own loop train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

import darkit
from darkit.engine.data.stateful import StatefulLoader, dataloader


def samples(count: int = 40) -> Dataset[Any]:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator))


def train_loader(seed: int = 3) -> StatefulLoader:
    return dataloader(samples(), batch_size=6, seed=seed)


def val_loader() -> StatefulLoader:
    return dataloader(samples(20), batch_size=6, shuffle=False)


class Base(lightning.LightningModule):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("loss_logged", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Schedules(Base):
    """Two schedules: one by steps with a frequency, one by the metric of an epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        step = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return [optimizer], [
            {"scheduler": step, "interval": "step", "frequency": 3},
            {"scheduler": plateau, "interval": "epoch", "monitor": "val_loss"},
        ]


class PlateauBySteps(Base):
    """A schedule that is stepped after every batch with a metric of the batch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "interval": "step", "monitor": "loss_logged"},
        }


class Gan(Base):
    """Manual optimization with two optimizers, toggled."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.made = nn.Linear(2, 4)
        self.judge = nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        makes, judges = self.optimizers()
        noise = torch.randn(len(batch[0]), 2)
        self.toggle_optimizer(makes)
        loss = -self.judge(self.made(noise)).mean()
        makes.zero_grad()
        self.manual_backward(loss)
        makes.step()
        self.untoggle_optimizer(makes)
        self.toggle_optimizer(judges)
        other = self.judge(self.made(noise).detach()).mean() - self.judge(batch[0]).mean()
        judges.zero_grad()
        self.manual_backward(other)
        judges.step()
        self.untoggle_optimizer(judges)
        self.log_dict({"g": loss, "d": other}, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.made.parameters(), lr=0.01),
            torch.optim.SGD(self.judge.parameters(), lr=0.01),
        ]


class ManualAccumulation(Base):
    """Manual optimization that steps after every third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch) / 3
        self.manual_backward(loss)
        if (batch_idx + 1) % 3 == 0:
            optimizer = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()
            self.lr_schedulers().step()
        self.log("part", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.9)]


class Hooks(Base):
    """Hooks that change the training: clipping, a warm-up in optimizer_step, noise on batches, weights per epoch."""

    def on_train_epoch_start(self) -> None:
        self.shift = torch.rand(())

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0] + 0.01, batch[1])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]) if self.training else batch

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, **settings: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, (self.trainer.global_step + 1) / 10)
        optimizer.step(closure=optimizer_closure)

    def on_train_epoch_end(self) -> None:
        with torch.no_grad():
            self.net[0].bias.mul_(0.99)
        self.log("epoch_value", torch.rand(()))


class Metrics(Base):
    """torchmetrics objects, logged by themselves and by their values."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.mean = torchmetrics.MeanMetric()
        self.val_accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = self(batch[0])
        loss = cross_entropy(outputs, batch[1])
        self.accuracy(outputs, batch[1])
        self.mean.update(loss)
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log("largest", loss, reduce_fx="max", on_epoch=True, on_step=False)
        self.log("sum", loss, reduce_fx=torch.sum, on_epoch=True, on_step=False)
        self.log("of_size", loss, batch_size=len(batch[0]), on_epoch=True, on_step=False)
        return {"loss": loss, "extra": outputs.mean()}

    def on_train_epoch_end(self) -> None:
        self.log("mean", self.mean.compute())
        self.mean.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_accuracy.update(self(batch[0]), batch[1])
        self.log("val_accuracy", self.val_accuracy)
        self.log("val_loss", self.loss(batch))


class Lbfgs(Base):
    """An optimizer that calls the closure several times."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)


KINDS: dict[str, tuple[Callable[[], lightning.LightningModule], dict[str, Any], Callable[[], list[Any]]]] = {
    "plain": (Base, {}, list),
    "schedules": (Schedules, {}, list),
    "plateau by steps": (PlateauBySteps, {}, list),
    "gan": (Gan, {}, list),
    "manual accumulation": (ManualAccumulation, {}, list),
    "hooks": (Hooks, {}, list),
    "metrics": (Metrics, {}, list),
    "lbfgs": (Lbfgs, {}, list),
    "accumulation": (Base, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.3}, list),
    "validation inside epochs": (Schedules, {"val_check_interval": 3}, list),
    "swa": (
        Base,
        {},
        lambda: [lightning.pytorch.callbacks.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2, device=None)],
    ),
    "early stopping": (Base, {}, lambda: [lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=1)]),
}


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train_stock(kind: str, **settings: Any) -> lightning.LightningModule:
    make, options, callbacks = KINDS[kind]
    lightning.seed_everything(0, verbose=False)
    module = make()
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks(),
        **{"max_epochs": 4, **options, **settings},
    )
    lightning.seed_everything(0, verbose=False)
    trainer.fit(module, train_loader(), val_loader())
    return module


def train_run(kind: str, name: str, **settings: Any) -> tuple[lightning.LightningModule, darkit.Run]:
    make, options, callbacks = KINDS[kind]
    lightning.seed_everything(0, verbose=False)
    module = make()
    run = darkit.fit(
        module,
        train_loader(),
        val_loader(),
        name=name,
        callbacks=callbacks(),
        **{"max_epochs": 4, "device": "cpu", **options, **settings},
    )
    return module, run
