"""Checks of what depends on the device. Each returns rows of the table that ``python -m tests.device`` prints."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

import darkit
from darkit.engine.checkpoints.snapshot import Snapshot
from tests.device.models import Wide, data

ROOT = Path(__file__).parents[2]
_WARM_UP, _COUNTED = 5, 40  # steps


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
    """Count, on the training thread, the calls that wait for the device, in the steps after the first ones."""

    def __init__(self) -> None:
        self.waits: list[str] = []
        self._thread = threading.get_ident()
        self._seen: Any = None

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index == _WARM_UP:
            self._seen = warnings.catch_warnings()
            self._seen.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = self._record
            torch.cuda.set_sync_debug_mode("warn")

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
    for precision in ("32-true", "bf16-mixed"):
        count = _CountWaits()
        with tempfile.TemporaryDirectory() as folder, darkit_home(folder):
            try:
                steps = _WARM_UP + _COUNTED
                trained(folder, device, precision=precision, max_step=steps, callbacks=[count], log_step_interval=1)
            finally:
                count.close()
        places = ", ".join(sorted(set(count.waits)))
        value = f"{len(count.waits) / _COUNTED:.2f}{f' ({places})' if places else ''}"
        rows.append(Row(f"waits per step, {precision}", value, "0", not count.waits))
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
