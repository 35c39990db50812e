"""What the fault tests share: children of a warm process, waiting for a condition, and a training to disturb."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from torch import Tensor, nn

from darkit.runs import files
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.status import read_status
from darkit.runs.verify import find_problem

CHECKOUT = Path(__file__).parents[2]
LIMIT = 120.0  # seconds; a busy machine is not a fault

# A training that takes a while, with dropout and Adam, and goes on if it was begun before.
TRAIN = """
import torch, darkit
from torch import nn
from tests.faults.parts import Net
torch.manual_seed(0)
generator = torch.Generator().manual_seed(1)
x = torch.randn(64, 8, generator=generator)
darkit.fit(Net({width}), (x, x.sum(1, keepdim=True)), loss=nn.functional.mse_loss, name="run",
           device="cpu", batch_size=4, {settings})
"""


class Net(nn.Module):
    """Regression from (batch, 8) to (batch, 1), with dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(8, width), nn.Dropout(0.1), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Code(str):
    """A setting's value that is code, and not a text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def training(width: int = 16, **settings: Any) -> str:
    """Returns the code of a training with these settings."""
    usual = {"resume": "auto", "max_step": 1_000_000, "save_step_interval": 10, "tensorboard": False}
    given = usual | settings
    return TRAIN.format(width=width, settings=", ".join(f"{key}={value!r}" for key, value in given.items()))


def wait_until(condition: Callable[[], object], what: str = "what was waited for", limit: float = LIMIT) -> None:
    """Waits for a condition, and fails after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come within {limit:g} s")
        time.sleep(0.002)


class Child:
    """A process that runs one case."""

    def __init__(self, zygote: Zygote, pid: int, output: Path) -> None:
        self.zygote, self.pid, self.path = zygote, pid, output
        self.code: int | None = None

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.path.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to it alone."""
        os.kill(self.pid, number)

    def kill_group(self) -> int:
        """Kills it and everything it has started; returns its exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self, limit: float = LIMIT) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        if self.code is None:
            descriptor = os.pidfd_open(self.pid)
            ended, _, _ = select.select([descriptor], [], [], limit)
            os.close(descriptor)
            if not ended:
                os.killpg(self.pid, signal.SIGKILL)
            self.code = int(self.zygote.ask({"wait": self.pid}))
            assert ended, f"it did not end within {limit:g} s:\n{self.output}"
        return self.code


class Zygote:
    """Starts children from a process that has torch, lightning and darkit in it already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)},
        )
        assert self._line() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=LIMIT)
        self.process.stdout.close()

    def ask(self, request: dict[str, Any]) -> str:
        """Sends a request and returns the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._line()

    def run(self, code: str, home: Path, **environment: str) -> Child:
        """Starts a child that runs code."""
        output = self.folder / f"{len(self.children)}.txt"
        variables = {"DARWIN_KIT_HOME": str(home)} | environment
        pid = int(self.ask({"code": code, "environment": variables, "output": str(output)}))
        wait_until(output.exists, "the child")
        self.children.append(Child(self, pid, output))
        return self.children[-1]

    def end_children(self) -> None:
        """Kills those that are still there."""
        for child in self.children:
            if child.code is None:
                child.kill_group()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def strace() -> str:
    """Returns the path of strace; a test that needs it fails without."""
    found = shutil.which("strace")
    if found is None:
        pytest.fail("strace is not there: `make tools` installs it, or `apt install strace`.")
    return found


def temporary_files(folder: Path) -> list[str]:
    """Returns what a writer left behind."""
    return sorted(path.name for path in folder.glob(".*.tmp-*"))


def finished(folder: Path) -> set[int]:
    """Returns the steps whose checkpoint has a manifest: these are promised."""
    return {checkpoint.step for checkpoint in list_checkpoints(folder) if checkpoint.verified}


def problems(folder: Path) -> list[str]:
    """Returns what is wrong with checkpoints that have a manifest."""
    return [find_problem(checkpoint) for checkpoint in list_checkpoints(folder) if find_problem(checkpoint)]


def last_logged(folder: Path) -> int:
    """Returns the last step in the log."""
    from darkit.runs.log import read_log

    return int(read_log(folder / files.LOG)["step"][-1])


def state(folder: Path) -> str:
    """Returns the run's state."""
    return read_status(folder).state
