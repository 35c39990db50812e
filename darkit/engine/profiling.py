"""Where the time of a training step goes: parts of a step measured with torch's profiler, and its operations.

Each part ends with a wait for the device, so that the work on an accelerator belongs to the part that asked for it.
Parts that overlap in a training are therefore measured one after the other; the time of a step is taken from the steps
before, which are not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from lightning import Callback, LightningModule, Trainer
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from darkit.engine.callbacks import StepCheckpoint, StepEvaluate, StepLog
from darkit.engine.steps.adapter import Adapter
from darkit.errors import ConfigError
from darkit.runs.work import Work

PARTS = ("data", "forward", "backward", "optimizer", "log", "save")
_PREFIX = "darkit."
WARM_UP = 5  # steps before anything is measured
_MOST_OPERATORS = 8


@dataclass
class Profile:
    """What was measured.

    Attributes:
        device: The type of the device.
        precision: The precision of the training.
        seconds: The seconds of a step without measurement.
        measured: The seconds of a measured step.
        parts: The seconds of each part in a measured step; ``save`` those of one save.
        save_interval: The steps between saves of the training, or 0.
        work: What a step computes; an unknown peak of the device is what a large product of matrices reaches.
        operators: The operators that take longest: their name, and their seconds in a step.
    """

    device: str = "cpu"
    precision: str = "32-true"
    seconds: float = 0.0
    measured: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    save_interval: int = 0
    work: Work = field(default_factory=lambda: Work(0, 0, 0))
    operators: list[tuple[str, float]] = field(default_factory=list)

    def columns(self) -> dict[str, float]:
        """Return the numbers as columns of the log."""
        rate, work = 1 / (self.seconds or 1.0), self.work
        found = {f"ms_{part}": 1000 * seconds for part, seconds in self.parts.items()}
        found |= {"ms_step": 1000 * self.seconds, "parameters": float(work.parameters)}
        further = {
            "samples_per_second": None if work.samples is None else work.samples * rate,
            "flops": work.flops,
            "mfu": work.utilization(rate),
            "tokens_per_second": None if work.tokens is None else work.tokens * rate,
        }
        return found | {key: float(value) for key, value in further.items() if value is not None}

    @property
    def shares(self) -> dict[str, float]:
        """The share of each part in a step, with a save's per step of the training, and of the ``other`` rest."""
        each = dict(self.parts)
        save = each.pop("save", 0.0)
        each["save"] = save / self.save_interval if self.save_interval else 0.0
        rest = self.measured - sum(self.parts[part] for part in self.parts if part != "save")
        each["other"] = max(0.0, rest)
        total = sum(each.values()) or 1.0
        return {part: seconds / total for part, seconds in each.items()}


class StepProfile(Callback):
    """Measure the steps of a training by darkit's loop: first their time, then their operations, then their parts.

    Args:
        steps: The number of steps in each of both measurements.

    Attributes:
        result: What was measured.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.result = Profile()
        self._began = 0.0
        self._undo: list[Callable[[], None]] = []
        self._profiler: Any = None
        self._stretches = False

    @property
    def last(self) -> int:
        """The step at which the training must end."""
        return WARM_UP + self.steps + 1 + self.steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Adapter):
            raise ConfigError(
                f"{type(pl_module).__name__} is trained by Lightning's own loop, but only darkit's own loop can be "
                "profiled: give darkit.fit profiler=, an argument of lightning.Trainer."
            )
        if trainer.world_size > 1:
            raise ConfigError("Only a training in one process can be profiled.")
        saver = saver_of(trainer)
        self.result.save_interval, saver.every = saver.every, 0  # one save is measured
        self.result.precision = pl_module.config.precision
        self.result.device = pl_module.device.type

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin and end the measurements at the ends of steps."""
        if not outputs or not isinstance(pl_module, Adapter):
            return
        step = pl_module.steps
        if step == WARM_UP:
            self._began = _now(pl_module)
        elif step == WARM_UP + self.steps:
            self.result.seconds = (_now(pl_module) - self._began) / self.steps
            self._stretches, pl_module._stretching = pl_module._stretching, False  # so that the next call begins anew
        elif step == WARM_UP + self.steps + 1:
            self._measure_parts(trainer, pl_module)
        elif step == self.last - 1:
            saver_of(trainer).wanted = step
        elif step == self.last:
            self._finish(pl_module)
            outputs.update(self.result.columns())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self._profiler = None

    def _measure_parts(self, trainer: Trainer, adapter: Adapter) -> None:
        def timed(part: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **settings: Any) -> Any:
                    with _recorded(part, adapter):
                        return function(*arguments, **settings)

                return call

            return wrap

        adapter._stretching = self._stretches
        self._replace(
            adapter, "training_step", lambda step: lambda dataloader_iter: step(_Timed(dataloader_iter, adapter))
        )
        for name, part in (
            ("_compute", "forward"),
            ("_backward", "backward"),
            ("_step", "optimizer"),
            ("_clear_gradients", "optimizer"),
        ):
            self._replace(adapter, name, timed(part))
        parts = {StepLog: "log", StepCheckpoint: "save", StepEvaluate: "evaluate"}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if type(callback) in parts:
                self._replace(callback, "on_train_batch_end", timed(parts[type(callback)]))
        activities = [ProfilerActivity.CPU]
        if adapter.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._profiler.__enter__()
        self._began = _now(adapter)

    def _finish(self, adapter: Adapter) -> None:
        seconds = _now(adapter) - self._began
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        self._end()
        averages = profiler.key_averages()
        found = {
            event.key.removeprefix(_PREFIX): event.cpu_time_total / 1e6
            for event in averages
            if event.key.startswith(_PREFIX) and event.device_type == DeviceType.CPU
        }
        save = found.pop("save", 0.0)
        steps = self.steps
        self.result.measured = (seconds - save - found.get("evaluate", 0.0)) / steps
        self.result.parts = {part: found.get(part, 0.0) / steps for part in PARTS if part != "save"} | {"save": save}
        on_device = adapter.device.type == "cuda"
        operators = [
            (event.key, (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6 / steps)
            for event in averages
            if not event.key.startswith((_PREFIX, "ProfilerStep", "cuda"))
        ]
        operators.sort(key=lambda pair: -pair[1])
        self.result.operators = operators[:_MOST_OPERATORS]
        work = adapter.work or self.result.work
        if work.peak is None:
            peak, source = measured_peak(self.result.device, self.result.precision)
            work = replace(work, peak=peak, peak_source=source)
        self.result.work = work

    def _replace(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace a function of an object until `_end`."""
        own, original = name in vars(owner), getattr(owner, name)
        setattr(owner, name, wrap(original))
        self._undo.append(lambda: setattr(owner, name, original) if own else delattr(owner, name))

    def _end(self) -> None:
        while self._undo:
            self._undo.pop()()


def saver_of(trainer: Trainer) -> StepCheckpoint:
    """Return the callback that saves."""
    return next(one for one in trainer.callbacks if isinstance(one, StepCheckpoint))  # type: ignore[attr-defined]


class _Timed:
    """Batches whose fetching is recorded."""

    def __init__(self, batches: Any, adapter: Adapter) -> None:
        self._batches, self._adapter = batches, adapter

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with _recorded("data", self._adapter):
            return next(self._batches)

    @property
    def done(self) -> bool:
        """Whether it was the last batch."""
        return bool(self._batches.done)


@contextmanager
def _recorded(part: str, adapter: Adapter) -> Iterator[None]:
    with record_function(_PREFIX + part):
        yield
        _wait(adapter)


def _wait(adapter: Adapter) -> None:
    if adapter.device.type != "cpu":
        getattr(torch, adapter.device.type).synchronize()


def _now(adapter: Adapter) -> float:
    _wait(adapter)
    return time.perf_counter()


def measured_peak(device: str, precision: str) -> tuple[float, str]:
    """Return the operations per second that a large product of matrices reaches, and the words for it."""
    kind = precision.partition("-")[0]
    dtype = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}.get(kind, torch.float32)
    size = 1024 if device == "cpu" else 8192
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best, "measured with a product of matrices"


def verdict(found: Profile) -> str:
    """Return in a sentence what a step waits for most, and what may help."""
    shares = found.shares
    computing = shares["forward"] + shares["backward"]
    others = {part: share for part, share in shares.items() if part not in ("forward", "backward")}
    most = max(others, key=lambda part: others[part])
    advice = {
        "data": "give num_workers=, or data that is prepared once",
        "optimizer": "a larger batch_size, or a fused optimizer (fused=true), does more per update",
        "log": "log_step_interval= logs less often",
        "save": "save_step_interval= saves less often",
        "other": "a step is short: a larger batch_size gives the loop around it less to do",
    }
    if others[most] > 0.25:
        name = "what is around the steps" if most == "other" else f"the part {most!r}"
        return f"{others[most]:.0%} of a step goes to {name}: {advice[most]}."
    return (
        f"The model itself takes {computing:.0%} of a step (forward {shares['forward']:.0%}, backward "
        f"{shares['backward']:.0%}): only a faster model, precision= or compile=true makes the step shorter."
    )
