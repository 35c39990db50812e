"""A plain module under Lightning's own loop, for callbacks that need it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import lightning
from torch import Tensor, nn
from torch.optim import Optimizer

from darkit.engine.checkpoints.weights import bare
from darkit.engine.config import TrainerConfig
from darkit.engine.device import kept_generators
from darkit.engine.log.values import number_of
from darkit.engine.metrics.means import Means, Weigher
from darkit.engine.metrics.merging import Merging
from darkit.engine.metrics.undisturbed import evaluating
from darkit.engine.steps.loss import Step
from darkit.engine.steps.optim import MakeOptimizer, make_optimizer, restore_optimizer
from darkit.engine.steps.schedule import make_schedule


class PlainModule(lightning.LightningModule):
    """The LightningModule of a user's module: its loss, its optimizer by the config, its validation.

    Attributes and submodules of the user's module are found on this one too, and ``state_dict`` is that of the user's
    module. What the step returns is logged under its names, with ``val_`` in a validation.

    Args:
        module: The user's module.
        compute: See `darkit.engine.steps.loss.make_step`.
        config: Optimizer and schedule.
        optimizer: The user's optimizer or a callable of the parameters, or None.
        scheduler: The user's schedule, as for `darkit.fit`, or None.
        values: The values of the module's config, for ``hparams``.

    Attributes:
        validated: The last step after which a validation has ended.
    """

    def __init__(
        self,
        module: nn.Module,
        compute: Step,
        config: TrainerConfig,
        *,
        optimizer: Optimizer | MakeOptimizer | None = None,
        scheduler: Any = None,
        values: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.compute = compute
        self.config = config
        self._given = (optimizer, scheduler)
        self._weigh = Weigher(module, compute.evaluation.observed)
        self._means = Means()
        self._merging: Merging | None = None
        self.validated = -1
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]
        self.save_hyperparameters({str(key): value for key, value in (values or {}).items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self._given
        made = make_optimizer(self.module, self.config, optimizer, fused=False)
        schedule = make_schedule(made, self.config, scheduler)
        if schedule is None:
            return made
        schedule.check(self.config, 0)
        settings: dict[str, Any] = {"scheduler": schedule.scheduler, "interval": schedule.interval}
        settings |= {"frequency": schedule.frequency, "strict": schedule.strict}
        if schedule.monitor is not None:
            settings["monitor"] = schedule.monitor
        return {"optimizer": made, "lr_scheduler": settings}

    def restore_optimizer(self, content: Mapping[str, Any], changed: Collection[str]) -> None:
        """Restore optimizer and schedule as darkit's own loop does, with the settings that were changed since.

        Lightning's restoring would undo these.

        Args:
            content: The checkpoint.
            changed: Names of the settings.
        """
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        saved = content["lr_schedulers"]
        state = {
            "optimizer_state_dict": content["optimizer_states"][0],
            "scheduler_state_dict": saved[0] if saved else None,
            "current_step": content["current_step"],
        }
        schedule: Any = schedules[0] if schedules else None
        restore_optimizer(self.trainer.optimizers[0], schedule, state, changed, own_schedule=not self.has_own_schedule)

    @property
    def has_own_optimizer(self) -> bool:
        """Whether the optimizer is the user's and not the config's."""
        return self._given[0] is not None

    @property
    def has_own_schedule(self) -> bool:
        """Whether the schedule is the user's and not the config's."""
        return self._given[1] is not None

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        outputs = self.compute(batch, batch_idx)
        values = {key if key != "loss" else "train_loss": value for key, value in _numbers(outputs)}
        several = self.trainer.world_size > 1
        self.log_dict(values, on_step=True, on_epoch=False, batch_size=1, sync_dist=several)
        return outputs

    def on_validation_start(self) -> None:
        """Keep buffers, neuron state and generators as they are."""
        self._means = Means()
        self._merging = Merging(None) if self.trainer.world_size > 1 else None
        self._undisturbed = ExitStack()
        for context in (kept_generators(), evaluating(self.module)):
            self._undisturbed.enter_context(context)

    def on_validation_end(self) -> None:
        self._undisturbed.close()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self._merging is not None:
            self._merging.note(batch)
        self._means.add(self._weigh(lambda: self.compute.evaluation(batch, batch_idx), batch))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all batches of all processes, weighted as `darkit.engine.metrics.means` describes."""
        self.validated = self.trainer.global_step
        if self._merging is not None:
            values = self._merging.merge(self._means)
        else:
            values = self._means.result() | self._means.compute_metrics()
        named = {key if key.startswith("val_") else f"val_{key}": value for key, value in values.items()}
        self.log_dict(named, batch_size=1)


def _without_prefix(module: nn.Module, values: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Name the weights of a state as the user's module does."""
    for key in [key for key in values if key.startswith(f"{prefix}module.")]:
        values[prefix + key.removeprefix(f"{prefix}module.")] = values.pop(key)


def _with_prefix(module: nn.Module, values: dict[str, Any], prefix: str, *arguments: Any) -> None:
    """Undo `_without_prefix`."""
    for key in [key for key in values if key.startswith(prefix)]:
        values[f"{prefix}module.{key.removeprefix(prefix)}"] = values.pop(key)


def inner(module: nn.Module) -> nn.Module:
    """Return the user's module inside `PlainModule` and torch's wrappers."""
    found = bare(module)
    return bare(found.module) if isinstance(found, PlainModule) else found


def _numbers(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in outputs.items():
        if (number := number_of(key, value)) is not None:
            yield key, number.detach() if isinstance(number, Tensor) else float(number)
