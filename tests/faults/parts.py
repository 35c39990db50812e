"""What the fault tests share: waiting for a condition, and a training to disturb."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import files
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.status import read_status
from darkit.runs.verify import find_problem
from tests.children import LIMIT

# A training that takes a while, with dropout and Adam, and goes on if it was begun before.
TRAIN = """
import torch, darkit
from torch import nn
torch.manual_seed(0)
width = {width}
model = nn.Sequential(nn.Linear(8, width), nn.Dropout(0.1), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
generator = torch.Generator().manual_seed(1)
x = torch.randn(64, 8, generator=generator)
darkit.fit(model, (x, x.sum(1, keepdim=True)), loss=nn.functional.mse_loss, name="run", resume="auto",
           device="cpu", batch_size=4, {settings})
"""


def training(width: int = 16, **settings: Any) -> str:
    """Return the code of a training with these settings."""
    given = {"max_step": 1_000_000, "save_step_interval": 10, "tensorboard": False, "log_step_interval": 1} | settings
    return TRAIN.format(width=width, settings=", ".join(f"{key}={value!r}" for key, value in given.items()))


def wait_until(condition: Callable[[], object], what: str = "what was waited for", limit: float = LIMIT) -> None:
    """Wait for a condition, and fail after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come within {limit:g} s")
        time.sleep(0.002)


def strace() -> str:
    """Return the path of strace; a test that needs it fails without."""
    found = shutil.which("strace")
    if found is None:
        pytest.fail("strace is not there: `make tools` installs it, or `apt install strace`.")
    return found


def temporary_files(folder: Path) -> list[str]:
    """Return what a writer left behind."""
    return sorted(path.name for path in folder.glob(".*.tmp-*"))


def finished(folder: Path) -> set[int]:
    """Return the steps whose checkpoint has a manifest: these are promised."""
    return {checkpoint.step for checkpoint in list_checkpoints(folder) if checkpoint.verified}


def problems(folder: Path) -> list[str]:
    """Return what is wrong with checkpoints that have a manifest."""
    return [find_problem(checkpoint) for checkpoint in list_checkpoints(folder) if find_problem(checkpoint)]


def last_logged(folder: Path) -> int:
    """Return the last step in the log."""
    from darkit.runs.log import read_log

    return int(read_log(folder / files.LOG)["step"][-1])


def state(folder: Path) -> str:
    """Return the run's state."""
    return read_status(folder).state
