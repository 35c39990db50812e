"""Checks of what depends on the device. Each returns rows of the table that ``python -m tests.device`` prints."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

import darkit
from darkit.engine.checkpoints.snapshot import Snapshot
from tests.benchmarks.gpt import Plain, Sizes, gpt
from tests.device.models import Wide, data

ROOT = Path(__file__).parents[2]
_WARM_UP, _COUNTED = 5, 40  # steps
_WINDOWS = 16  # of a batch
_MEDIUM = Sizes(vocabulary=16384, context=512, layers=8, heads=8, hidden=512)
_LANGUAGE_MODELS: dict[str, Callable[[Sizes], nn.Module]] = {"gpt": gpt, "plain": Plain}
_CASES: dict[str, dict[str, Any]] = {
    "32-true": {"precision": "32-true"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "everything on": {
        "precision": "bf16-mixed",
        "tensorboard": True,
        "console": True,
        "gradient_clip": 1.0,
        "ema_decay": 0.99,
        "scheduler": "cosine",
        "warmup_step": 3,
    },
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        check: What was checked.
        value: What was measured.
        wanted: What it must be.
        good: Whether it is.
    """

    check: str
    value: str
    wanted: str
    good: bool


def trained(folder: str, device: str, **settings: Any) -> nn.Module:
    """Train a new `Wide` below ``folder`` and return it."""
    torch.manual_seed(0)
    model = Wide()
    options = {"batch_size": 8, "tensorboard": False, "console": False} | settings
    darkit.fit(model, data(), device=device, **options)
    return model


def resumes_exactly(device: str, precision: str) -> list[Row]:
    """A training that is interrupted and resumed ends with the weights of one that is not."""
    with tempfile.TemporaryDirectory() as folder, darkit_home(folder):
        whole = trained(folder, device, name="whole", precision=precision, max_step=12)
        trained(folder, device, name="parts", precision=precision, max_step=5)
        resumed = trained(folder, device, name="parts", precision=precision, max_step=12, resume=True)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    same = all(torch.equal(one.cpu(), other.cpu()) for one, other in pairs)
    return [Row(f"resume in {precision}", "equal" if same else "different", "equal", same)]


class _CountWaits(lightning.Callback):
    """Count, on the training thread, the calls that wait for the device, in the middle steps of a training."""

    def __init__(self) -> None:
        self.waits: list[str] = []
        self._thread = threading.get_ident()
        self._seen: Any = None

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == _WARM_UP:
            self._seen = warnings.catch_warnings()
            self._seen.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = self._record
            torch.cuda.set_sync_debug_mode("warn")
        if trainer.global_step == _WARM_UP + _COUNTED:
            self.close()

    def _record(self, message: Any, category: Any, filename: str, line: int, *rest: Any) -> None:
        if "synchroniz" in str(message) and threading.get_ident() == self._thread:
            self.waits.append(f"{Path(filename).name}:{line}")

    def on_train_end(self, *arguments: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop counting."""
        torch.cuda.set_sync_debug_mode("default")
        if self._seen is not None:
            self._seen.__exit__(None, None, None)
            self._seen = None


def no_step_waits(device: str) -> list[Row]:
    """A step that logs does not wait for the device: torch names each call that would."""
    rows = []
    for name, settings in _CASES.items():
        count = _CountWaits()
        steps = _WARM_UP + _COUNTED + 2  # the last step also saves
        with tempfile.TemporaryDirectory() as folder, darkit_home(folder):
            try:
                trained(folder, device, max_step=steps, callbacks=[count], log_step_interval=1, **settings)
            finally:
                count.close()
        places = ", ".join(sorted(set(count.waits)))
        value = f"{len(count.waits) / _COUNTED:.2f}{f' ({places})' if places else ''}"
        rows.append(Row(f"waits per step, {name}", value, "0", not count.waits))
    return rows


def snapshots_are_pinned(device: str) -> list[Row]:
    """The copy for a save goes to pinned memory, and the second one allocates nothing."""
    content = {"state_dict": {f"layer{index}": torch.randn(4096, 4096, device=device) for index in range(8)}}
    size = sum(value.nbytes for value in content["state_dict"].values())
    snapshot = Snapshot()
    copied = snapshot.copy(content)
    snapshot.wait()
    pinned = all(value.is_pinned() for value in copied["state_dict"].values())
    right = all(torch.equal(copied["state_dict"][key], value.cpu()) for key, value in content["state_dict"].items())
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    snapshot.copy(content)
    returned = time.perf_counter() - started
    snapshot.wait()
    took = time.perf_counter() - started
    grown = torch.cuda.max_memory_allocated(device) - before
    stream = torch.cuda.Stream(device)
    target = [torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in content["state_dict"].values()]
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    with torch.cuda.stream(stream):
        for to, value in zip(target, content["state_dict"].values(), strict=True):
            to.copy_(value, non_blocking=True)
    stream.synchronize()
    bare = time.perf_counter() - started
    return [
        Row("snapshot in pinned memory", str(pinned), "True", pinned),
        Row("snapshot equals the state", str(right), "True", right),
        Row("device memory of a snapshot", f"{grown / 2**20:.0f} MiB of {size / 2**20:.0f}", "0", grown == 0),
        Row(
            "training thread held by a snapshot",
            f"{returned * 1e3:.1f} ms of {took * 1e3:.1f}",
            "< 20 %",
            returned < took / 5,
        ),
        Row("whole snapshot against a bare stream copy", f"{took / bare:.2f}x", "<= 1.5x", took <= 1.5 * bare),
    ]


class _PeakOfSaves(lightning.Callback):
    """Record the peaks of device and host memory in the steps after the first save."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.before = self.host_before = 0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index == 2:
            torch.cuda.reset_peak_memory_stats(self.device)
        if index == 3:  # no save yet
            self.before = torch.cuda.max_memory_allocated(self.device)
            self.host_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            torch.cuda.reset_peak_memory_stats(self.device)


def memory_of_a_save(device: str) -> list[Row]:
    """A save needs no further device memory, and one copy of the state on the host."""
    peak = _PeakOfSaves(device)
    torch.manual_seed(0)
    model = Wide(4096, 8)
    state = 3 * sum(parameter.nbytes for parameter in model.parameters())  # Adam
    with tempfile.TemporaryDirectory() as folder, darkit_home(folder):
        darkit.fit(
            model,
            data(4096, 64),
            device=device,
            batch_size=8,
            max_step=12,
            save_step_interval=4,
            keep_last=1,
            tensorboard=False,
            callbacks=[peak],
        )
    grown = torch.cuda.max_memory_allocated(device) - peak.before
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - peak.host_before
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return [
        Row("device memory of a save", f"{grown / state:.3f}x the state", "<= 0.01x", grown <= state / 100),
        Row("host memory of saves", f"{host / state:.2f}x the state", "<= 1.1x", host <= 1.1 * state),
    ]


class _Durations(lightning.Callback):
    """Measure each step to its end on the device, in seconds, from step 1 on.

    Some steps before each save it waits until the last one is on the disk, which the save would do otherwise.
    """

    def __init__(self, every: int) -> None:
        self.steps: list[float] = []
        self._every = every
        self._last = 0.0

    def on_train_batch_start(self, *arguments: Any) -> None:
        runs = Path(os.environ["DARWIN_KIT_HOME"], "base")
        while len(self.steps) % self._every == self._every // 2 and any(runs.glob("*/.*.tmp-*")):
            time.sleep(0.01)
        torch.cuda.synchronize()
        now = time.perf_counter()
        if self._last:
            self.steps.append(now - self._last)
        self._last = now


def stall_of_a_save(device: str) -> list[Row]:
    """A save of `darkit.fit` holds the training up no longer than a stream needs to copy the same bytes."""
    every = 20
    durations = _Durations(every)
    model = Wide(4096, 8)
    samples = data(4096, 64)
    with tempfile.TemporaryDirectory() as folder, darkit_home(folder):
        darkit.fit(
            model,
            samples,
            device=device,
            batch_size=8,
            max_step=5 * every + 2,
            save_step_interval=every,
            keep_last=1,
            tensorboard=False,
            callbacks=[durations],
        )
    usual = statistics.median(durations.steps)
    stalls = [
        durations.steps[index] - usual for index in range(2 * every - 1, 5 * every, every)
    ]  # from the second save
    weights = [parameter.detach() for parameter in model.parameters() for _ in range(3)]  # as many bytes as with Adam
    targets = [torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in weights]
    stream = torch.cuda.Stream(device)
    torch.cuda.synchronize()
    started = time.perf_counter()
    with torch.cuda.stream(stream):
        for target, value in zip(targets, weights, strict=True):
            target.copy_(value, non_blocking=True)
    stream.synchronize()
    bare = time.perf_counter() - started
    stall = statistics.median(stalls)
    return [
        Row(
            "stall of a save against a bare stream copy",
            f"{stall / bare:.2f}x of {bare * 1e3:.0f} ms",
            "<= 1.2x",
            stall <= 1.2 * bare,
        )
    ]


def speed_of_gpt(device: str, sizes: Sizes = _MEDIUM, *, steps: int = 20, compiled: bool = True) -> list[Row]:
    """The built-in gpt trains in bfloat16 as fast as a GPT as training scripts write it, both compiled."""
    trainings = {name: _training(make(sizes), sizes, device, compiled) for name, make in _LANGUAGE_MODELS.items()}
    rounds: dict[str, list[float]] = {name: [] for name in trainings}
    for training in trainings.values():
        training(3)  # compiles
    for _ in range(3):
        for name, training in trainings.items():
            seconds = training(steps)
            rounds[name].append(steps * _WINDOWS * sizes.context / seconds)
    ours, plain = (statistics.median(rounds[name]) for name in ("gpt", "plain"))
    value = f"{ours / plain:.2f}x of {plain:.3g}"
    return [Row("gpt, bf16, tokens/s against a plain GPT", value, ">= 1x", ours >= plain)]


def _training(model: nn.Module, sizes: Sizes, device: str, compiled: bool) -> Callable[[int], float]:
    """Return a function that trains a model for some steps and returns the seconds they took on the device."""
    model.to(device)
    step = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(sizes.vocabulary, (_WINDOWS, sizes.context + 1), device=device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def train(steps: int) -> float:
        _synchronize(device)
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
                loss = step(inputs, targets)[1]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        _synchronize(device)
        return time.perf_counter() - started

    return train


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def several_processes(strategy: str, count: int, precision: str = "32-true") -> list[Row]:
    """Processes with nccl, one for each device, end with equal weights in a run that can be read."""
    code = (
        f"trained('.', 'cuda', name='group', device_num={count}, strategy={strategy!r}, precision={precision!r}, "
        "max_step=10, save_step_interval=5)"
    )
    with tempfile.TemporaryDirectory() as folder, darkit_home(folder) as environment:
        script = Path(folder, "script.py")
        script.write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.device.checks import trained\n{code}\n"
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150, env=environment)
        good = done.returncode == 0 and darkit.load("group").details.state == "finished"
        steps = [checkpoint.step for checkpoint in darkit.load("group").checkpoints()] if good else []
    value = f"finished, saved {steps}" if good else done.stderr.strip().splitlines()[-1][:80] if done.stderr else "?"
    name = f"{count} process(es), nccl, {strategy}, {precision}"
    return [Row(name, value, "finished, saved [5, 10]", good and steps == [5, 10])]


@contextmanager
def darkit_home(folder: str) -> Iterator[dict[str, str]]:
    """Use a home of its own in a block, and yield the environment with it."""
    before = os.environ.get("DARWIN_KIT_HOME")
    os.environ["DARWIN_KIT_HOME"] = str(Path(folder, "home"))
    try:
        yield dict(os.environ)
    finally:
        if before is None:
            del os.environ["DARWIN_KIT_HOME"]
        else:
            os.environ["DARWIN_KIT_HOME"] = before
