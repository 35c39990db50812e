"""The LightningModule that darkit puts around the user's module."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.data.workers import deferred_worker_deaths
from darkit.engine.device import move_to_device, usual_types
from darkit.engine.lightning import Batches, data_ended, step_progress
from darkit.engine.log.progress import announce
from darkit.engine.metrics.denominators import Weight
from darkit.engine.metrics.means import Weigher
from darkit.engine.metrics.merging import keep_from_ddp, share_buffers
from darkit.engine.metrics.window import Window, backward_of_nothing, divide_gradients
from darkit.engine.steps.agreement import Agreement, Report
from darkit.engine.steps.first_step import FirstStep
from darkit.engine.steps.fused import recorded_fused
from darkit.engine.steps.loss import Step
from darkit.engine.steps.optim import MakeOptimizer, clear_gradients, make_optimizer, restore_optimizer
from darkit.engine.steps.own_settings import OwnSettings
from darkit.engine.steps.schedule import Schedule, make_schedule
from darkit.errors import ConfigError, DataError
from darkit.runs.graph import Graph
from darkit.runs.work import Work

_STRETCH = 0.1  # seconds
_PLAIN = frozenset((type(None), bool, int, str, list))  # never a parameter, a buffer or a module


class Adapter(LightningModule):
    """Train a user's module under Lightning, several steps per call where that is safe.

    Lightning spends about half a millisecond around every ``training_step``. This one therefore gets the iterator of
    batches and does optimizer steps for a tenth of a second. After each it calls the callbacks itself, so every step
    has its ``on_train_batch_start`` and ``on_train_batch_end``. (Lightning calls the first start of a stretch before
    the batch is loaded: its batch is the previous one.) With several devices or autocast, where Lightning's call must
    enclose one batch, it does one step.

    When data of unknown length ends, or a callback requests a stop, inside a stretch, Lightning closes it with one more
    ``on_train_batch_end`` with empty outputs, at which ``trainer.global_step`` has not moved.

    Args:
        module: The user's module; its parameters are trained in place.
        step: Turns a batch into ``{"loss": ..., ...}``; see `darkit.engine.steps.loss`.
        config: Optimizer, schedule, accumulation and clipping.
        feed: The training data.
        optimizer: The user's optimizer or a callable of the parameters, or None.
        scheduler: The user's schedule in any form of `make_schedule`, or None.
        resume: The checkpoint's content to resume from, or None; empty once the training has started.
        own: The settings that differ from those of the checkpoint.
        tell: Gets what the first step computed, and the graph of the model, or None.

    Attributes:
        computes: Whether loss and gradients of a batch are being computed, or an optimizer step follows them.
        settled: False during an optimizer step, when weights, schedule and position belong to no step.
        outputs: The return value of the last completed step, with the entries that callbacks added.
        agreement: What several processes agree on at every step, or None.
        weights: With several processes, the weights of the last step's values in this one, by name, but for the loss,
            which is already that of all.
        data_ended: Whether the training ends because an epoch had no batch.
        work: What the first step computed, or None before its end.
    """

    def __init__(
        self,
        module: nn.Module,
        step: Step,
        config: TrainerConfig,
        *,
        feed: Feed,
        optimizer: Optimizer | MakeOptimizer | None = None,
        scheduler: Any = None,
        resume: Mapping[str, Any] | None = None,
        own: OwnSettings | None = None,
        tell: Callable[[Work, Graph], None] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.compute = step
        self.config = config
        self.feed = feed
        self.schedule: Schedule | None = None
        self._given = (optimizer, scheduler)
        self._resume = resume
        self.own = own or OwnSettings()
        self._tell = tell
        self._window = Window(config.gradient_accumulation_steps)
        self._weigh = Weigher(module, step.observed)
        self.agreement: Agreement | None = None
        self.weights: dict[str, Weight] = {}
        self._stretching = False
        self.computes = False
        self.settled = True
        self.outputs: dict[str, Any] = {}
        self.data_ended = False
        self.work: Work | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Skip `nn.Module`'s search for parameters for plain values.

        Lightning assigns the name of the running hook to an attribute, many times a step.
        """
        if type(value) in _PLAIN and name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def log(self, name: str, *arguments: Any, **settings: Any) -> None:
        """Refuse values that a callback logs: Lightning would keep them, the run would not. Raises `ConfigError`."""
        raise ConfigError(
            f"A callback logged {name!r} with pl_module.log, which does not reach the run's log. Set "
            f"outputs[{name!r}] in its on_train_batch_end instead."
        )

    def configure_optimizers(self) -> Optimizer:
        """Make the optimizer, and the schedule that this adapter steps itself."""
        optimizer, scheduler = self._given
        changed = self.own.changed
        is_same = bool(self._resume) and "optimizer" not in changed
        fused = recorded_fused(self._resume or {}) if is_same else None
        if "strategy" in changed and self.config.strategy == "fsdp":  # it has no fused kernel
            fused, self.own.changed = None, {*changed, "fused"}
        made = make_optimizer(self.module, self.config, optimizer, fused=fused)
        self.schedule = make_schedule(made, self.config, scheduler)
        torchs = None if self.schedule is None else self.schedule.scheduler
        own_schedule = None if scheduler is None else torchs
        changed = self.own.compare(made, own_schedule, self._resume, is_own=optimizer is not None)
        step = 0
        if self._resume:
            restore_optimizer(made, torchs, self._resume, changed, own_schedule=scheduler is None)
            step = self._resume["current_step"]
        if self.schedule is not None:
            self._restore_schedule(self.schedule, step)
        self.own.report()
        return made

    def _restore_schedule(self, schedule: Schedule, step: int) -> None:
        """Restore a schedule's progress at a step, and announce what a person may not expect of it."""
        resumed = self._resume or {}
        schedule.restore(resumed.get("schedule_progress"), resumed.get("position", {}).get("epoch", 0))
        schedule.check(self.config, step)
        if step:  # a resumed run may begin with the end of an epoch, and torch would warn of a step before the first
            schedule.scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]
            schedule.reach_epoch(resumed.get("position", {}).get("epoch", 0))
        if not schedule.has_interval and not resumed and self.trainer.is_global_zero:
            name = type(schedule.scheduler).__name__
            announce(f"{name} is stepped after every step. (scheduler, 'epoch') steps it after every epoch.")

    def setup(self, stage: str) -> None:
        """Prepare the agreement of several processes, before the strategy wraps this module."""
        if self.trainer.world_size > 1:
            self.agreement = Agreement(self.trainer, self, self.config.precision, (self._resume or {}).get("weight"))
            if isinstance(self.trainer.strategy, DDPStrategy):
                keep_from_ddp(self, self.trainer.strategy.root_device)

    def on_train_start(self) -> None:
        """Decide how many steps a call may do, and find the callbacks of each step."""
        trainer = self.trainer
        alone = isinstance(trainer.strategy, SingleDeviceStrategy)
        is_direct = alone and self.config.precision.endswith("-true")
        self._stretching = alone and self.config.precision == "32-true"  # others change what callbacks and data make
        self._types = torch.get_default_dtype()
        self._compute: Callable[[Any, int], dict[str, Any]] = self.compute
        self._starting = _overriding(trainer, "on_train_batch_start")
        self._ending = _overriding(trainer, "on_train_batch_end")
        optimizer: Any = self.optimizers()
        self._optimizer = optimizer
        self._step: Callable[[], Any] = self._step_directly if is_direct else optimizer.step
        self._clear_gradients: Callable[[], None] = partial(clear_gradients, optimizer.optimizer)
        self._before_step = _overriding(trainer, "on_before_optimizer_step")
        self._progress = step_progress(trainer)
        has_workers = self.feed.has_workers
        self._undivided: Callable[[], AbstractContextManager[None]] = (
            deferred_worker_deaths if has_workers else nullcontext
        )
        self._moves = not (self._stretching and self.device.type == "cpu")
        has_hooks = _overriding(trainer, "on_before_backward") or _overriding(trainer, "on_after_backward")
        self._backward: Callable[..., Any] = self.manual_backward if has_hooks or not is_direct else Tensor.backward
        FirstStep(self, self._tell)

    @property
    def steps(self) -> int:
        """The number of completed steps while it trains: ``trainer.global_step``, at a tenth of its cost."""
        return self._progress.total.completed  # type: ignore[no-any-return]

    def on_train_end(self) -> None:
        """Leave the same module in every process: that of the first one, which is saved."""
        if self.agreement is not None:
            share_buffers(self.module)

    def on_train_epoch_end(self) -> None:
        """Move the data order to the next epoch, or end the training when an epoch had no batch.

        Raises:
            DataError: There was never any data, or one of several processes has none left.
        """
        if not self.feed.batches:
            trainer = self.trainer
            if not trainer.global_step or trainer.world_size > 1:  # the others would wait for this one
                raise DataError(
                    f"The training data is empty: its loader gave no batch in epoch {trainer.current_epoch}, after "
                    f"step {trainer.global_step} of {trainer.max_steps}."
                )
            self.data_ended = trainer.should_stop = True
            return
        # otherwise the epoch ends because the training does
        is_complete = self.feed.batches >= self.trainer.num_training_batches or data_ended(self.trainer)
        if self.schedule is not None and is_complete:
            self.schedule.after_epoch(self.trainer.current_epoch)
        if not self.trainer.should_stop:  # otherwise the epoch may be incomplete, and is resumed later
            self.feed.next_epoch(self.trainer.current_epoch + 1)
            if not self._window:
                self.feed.mark()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients, which are unscaled by now."""
        if not self.config.gradient_clip:
            return
        if self.config.precision == "bf16-mixed":  # Lightning refuses fused optimizers, as if they unscaled gradients
            self.trainer.precision_plugin.clip_grad_by_norm(optimizer, self.config.gradient_clip)
        else:
            self.clip_gradients(optimizer, self.config.gradient_clip, "norm")

    def training_step(self, dataloader_iter: Batches) -> dict[str, Any]:
        """Do one optimizer step or, where that is safe, a stretch of them.

        Returns:
            The last step's ``{"loss": ..., ...}``, or nothing when the window of accumulated batches is still open.
        """
        trainer = self.trainer
        deadline = time.monotonic() + _STRETCH
        first = True
        while True:
            with nullcontext() if self._stretching else usual_types(self._types, self.device):
                batch, index, _ = next(dataloader_iter)
            if self._moves:
                batch = move_to_device(trainer.precision_plugin.convert_input(batch), self.device)
            if not first:
                for callback in self._starting:
                    callback.on_train_batch_start(trainer, self, batch, index)
            self.__dict__["computes"] = True
            outputs = self._train_batch(batch)
            self.__dict__["computes"] = first = False
            if (
                not self._stretching
                or dataloader_iter.done
                or self.steps >= trainer.max_steps
                or (not self._window and (trainer.should_stop or time.monotonic() > deadline))
            ):
                return outputs
            for callback in self._ending:
                callback.on_train_batch_end(trainer, self, outputs, batch, index)
            if trainer.should_stop and not self._window:  # otherwise partially accumulated gradients are lost
                return {}

    def _train_batch(self, batch: Any) -> dict[str, Any]:
        """Add one batch to the window, and step the optimizer when that is full."""
        index = self.feed.batches
        self.feed.batches += 1
        if not self._window:
            self._clear_gradients()
            self._window.size = self.feed.batches_of_step(index) or self._window.size
        together = self.agreement
        if self._window.size == 1 and together is None:
            outputs = self._compute(batch, index)
            self._backward(outputs["loss"])
            outputs["loss"] = outputs["loss"].detach()
        else:
            weighed = self._weigh(lambda: self._compute(batch, index), batch)
            if self.feed.is_filler(index):
                weighed = weighed.uncounted()
            part = self._window.add(weighed, None if together is None else together.reference)
            backward = self._backward
            if self._window.empty is not False:
                backward = partial(backward_of_nothing, backward, self._parameters_of_a_pass(), self._window.empty)
            is_last = len(self._window) == self._window.size
            if together is not None and part is not None:
                report = Report(*self._window.loss(), self._window.has_further()) if is_last else None
                together.backward(backward, part, report)
            elif part is not None:
                backward(part)
            if not is_last:
                return {}
            divisor, outputs = self._window.close()
            if together is not None:
                divisor, outputs["loss"] = together.collect(self._window.size)
                self.weights = {name: weight for name, weight in self._window.weights.items() if name != "loss"}
            divide_gradients(self._optimizer, divisor)
        if self.compute.media:
            outputs.update(self.compute.take_media())
        with self._undivided():
            self.settled = False
            self._step()
            if self.schedule is not None:
                self.schedule.after_step(self.steps)
            self.feed.mark()
            self.__dict__["outputs"] = outputs
            self.settled = True
        return outputs

    def _parameters_of_a_pass(self) -> Iterable[nn.Parameter]:
        """Return the parameters that get gradients in a backward pass."""
        return self.module.parameters()

    def _step_directly(self) -> None:
        """Step the optimizer as Lightning does on one device, without looking up the hooks each time."""
        optimizer = self._optimizer.optimizer
        self._progress.increment_ready()
        for callback in self._before_step:
            callback.on_before_optimizer_step(self.trainer, self, optimizer)
        self.on_before_optimizer_step(optimizer)
        optimizer.step()
        self._progress.increment_completed()


def bare_module(pl_module: LightningModule) -> nn.Module:
    """Return the user's module inside the adapter, or a user's LightningModule itself."""
    return pl_module.module if isinstance(pl_module, Adapter) else pl_module


def _overriding(trainer: Trainer, hook: str) -> list[Callback]:
    """Return the callbacks that override a hook, in their order."""
    silent = getattr(Callback, hook)
    return [
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if getattr(getattr(callback, hook), "__func__", None) is not silent
    ]
