"""A signal to the whole process group, as ``timeout``, systemd, SLURM and Ctrl-C send it: data workers get it too."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.runs.status import read_status
from tests.children import CHECKOUT, Child, Zygote
from tests.faults.parts import last_logged, problems, wait_until

TRAIN = """
import torch, darkit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
if __name__ != "__mp_main__":
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Linear(16, 1))
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    workers = dict(num_workers=2, multiprocessing_context={context!r})
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), {options}, **workers)
    darkit.fit(model, data, loss=nn.functional.mse_loss, name="run", resume="auto", device="cpu",
               max_step=1_000_000, tensorboard=False, resume_overrides=True)
"""
USUAL = "batch_size=4, shuffle=True"
OWN = "batch_sampler=[[0, 1, 2, 3]] * 16"
ONE_EPOCH = "batch_sampler=[[0, 1, 2, 3]] * 1_000_000"  # its workers stay


def rows(run: Path) -> int:
    """How many steps have been logged."""
    log = run / "train_log.csv"
    return len(log.read_bytes().splitlines()) - 1 if log.exists() else 0


def begin(zygote: Zygote, home: Path, context: str, options: str = USUAL) -> tuple[Child, Path]:
    run = home / "base" / "run"
    before = rows(run)
    child = zygote.run(TRAIN.format(context=context, options=options), home)
    wait_until(lambda: rows(run) > before + 3, f"a step after {before}: {child.output}")
    return child, run


def assert_stopped(run: Path, name: str) -> None:
    status = read_status(run)
    assert (status.state, status.reason, status.traceback) == ("stopped", f"Stopped by {name}.", "")
    checkpoint, _ = read_run_checkpoint(run)
    assert checkpoint.step == status.step == last_logged(run)
    assert problems(run) == []


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("context", "options", "number", "times"),
    [
        ("fork", USUAL, signal.SIGTERM, 4),
        ("fork", OWN, signal.SIGTERM, 2),
        ("fork", USUAL, signal.SIGINT, 2),
        ("fork", USUAL, signal.SIGUSR1, 1),
        pytest.param("spawn", USUAL, signal.SIGINT, 3, marks=pytest.mark.soak),  # each worker imports torch anew
        pytest.param("spawn", OWN, signal.SIGTERM, 3, marks=pytest.mark.soak),
    ],
)
def test_a_signal_to_the_group_stops_and_saves_whatever_it_does_to_the_workers(
    zygote: Zygote, home: Path, context: str, options: str, number: signal.Signals, times: int
) -> None:
    chosen = random.Random(number)
    for _ in range(times):
        child, run = begin(zygote, home, context, options)
        time.sleep(chosen.uniform(0, 0.05))  # the random moment is the point
        os.killpg(child.pid, number)
        assert child.wait() == 128 + number, child.output
        assert_stopped(run, number.name)
        if (context, options) == (
            "fork",
            USUAL,
        ):  # else a worker may be killed while it starts or ends, of which torch tells
            assert "Traceback" not in child.output


@pytest.mark.soak
def test_timeout_which_signals_its_child_twice_stops_it_once(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TRAIN.format(context="fork", options=USUAL))
    run = home / "base" / "run"
    command = ["timeout", "--signal=TERM", "1000", sys.executable, str(script)]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        wait_until(lambda: rows(run) > 3, "a step")
        process.send_signal(signal.SIGTERM)  # which timeout passes on as it does when the time is over
        _, output = process.communicate(timeout=120)
    assert_stopped(run, "SIGTERM")
    assert b"Traceback" not in output


def test_a_worker_that_is_killed_without_a_request_is_a_crash_that_names_it_and_the_last_step_is_saved(
    zygote: Zygote, home: Path
) -> None:
    child, run = begin(zygote, home, "fork", ONE_EPOCH)
    workers = [
        int(pid)
        for task in Path(f"/proc/{child.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    os.kill(workers[0], signal.SIGKILL)
    assert child.wait() == 1, child.output
    status = read_status(run)
    assert (status.state, status.reason.startswith("A data worker died: ")) == ("crashed", True)
    checkpoint, _ = read_run_checkpoint(run)
    assert checkpoint.step == status.step == last_logged(run)
