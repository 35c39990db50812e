"""Killed without warning at any moment: nothing finished is lost, and every run goes on."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from psutil import Process

from darkit.engine.checkpoint import read_run_checkpoint
from darkit.runs.lock import RunLock, is_locked
from darkit.runs.log import read_log
from tests.faults.parts import (
    Child,
    Zygote,
    finished,
    problems,
    state,
    temporary_files,
    training,
    wait_until,
)

WIDE = 300  # about 1 MB of state, so that a save takes a while


def wait_for_more(run: Path, before: int) -> None:
    wait_until(lambda: max(finished(run), default=0) > before, f"a checkpoint after step {before}")


def disturb(zygote: Zygote, home: Path, times: int) -> None:
    """Kills a training again and again, half of the times while it saves, and looks at what is left."""
    chosen = random.Random(times)
    run = home / "base" / "run"
    for case in range(times):
        child = zygote.run(training(WIDE, save_step_interval=5, keep_last=20), home)
        wait_for_more(run, max(finished(run), default=0))
        if case % 2:
            wait_until(lambda: temporary_files(run), "a save")
        else:
            time.sleep(chosen.uniform(0, 0.05))  # the random moment is the point
        promised = finished(run)
        child.kill_group()
        kept = finished(run)
        assert max(kept) >= max(promised)
        assert len(promised - kept) <= 1, "only the one that was just superseded may be gone"
        assert problems(run) == []
        checkpoint, content = read_run_checkpoint(run)
        assert checkpoint.step == max(kept) == content["current_step"]
        assert state(run) == "crashed"
    child = zygote.run(training(WIDE, max_step=max(finished(run)) + 3, keep_last=20), home)
    assert child.wait() == 0, child.output
    assert state(run) == "finished"
    assert temporary_files(run) == []


def test_thirty_kills_lose_nothing(zygote: Zygote, home: Path) -> None:
    disturb(zygote, home, 30)


@pytest.mark.soak
def test_three_hundred_kills_lose_nothing(zygote: Zygote, home: Path) -> None:
    disturb(zygote, home, 300)


def test_workers_that_outlive_a_killed_trainer_do_not_keep_its_lock(zygote: Zygote, home: Path) -> None:
    child = zygote.run(training(num_workers=4), home)
    run = home / "base" / "run"
    wait_until(lambda: finished(run), child.output)
    assert is_locked(run)
    workers = Process(child.pid).children()
    assert len(workers) == 4
    child.send(signal.SIGKILL)  # the trainer alone
    child.wait()
    wait_until(lambda: not is_locked(run), "a free lock", limit=1)
    assert state(run) == "crashed"


START = """
import os, sys, time
from darkit.errors import DarkitError
while not os.path.exists({gate!r}): time.sleep(0.001)
try:
    {training}
except DarkitError as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


def starts(zygote: Zygote, home: Path, count: int, **settings: Any) -> list[Child]:
    """Starts so many trainings at the same moment, and waits for all of them."""
    gate = home.parent / "gate"
    code = START.format(gate=str(gate), training=training(**settings).strip().replace("\n", "\n    "))
    children = [zygote.run(code, home) for _ in range(count)]
    gate.touch()
    for child in children:
        child.wait()
    gate.unlink()
    return children


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_fifty_starts_under_one_name_one_runs_and_the_others_are_refused_by_name(zygote: Zygote, home: Path) -> None:
    children = starts(zygote, home, 50, max_step=3, resume=None)
    assert sorted(child.code or 0 for child in children) == [0] + [3] * 49
    for child in children:
        if child.code:
            assert child.output.startswith("RunExistsError There is a run 'run' already"), child.output
    run = home / "base" / "run"
    assert state(run) == "finished"
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert read_log(run / "train_log.csv")["step"].to_list() == [1, 2, 3]
    assert finished(run) == {3}
    assert problems(run) == []


def test_what_is_being_trained_cannot_be_gone_on_with_and_not_a_byte_of_it_changes(zygote: Zygote, home: Path) -> None:
    assert zygote.run(training(max_step=3), home).wait() == 0
    run = home / "base" / "run"
    lock = RunLock(run)
    before = everything(run)
    children = starts(zygote, home, 20, max_step=6, resume=True)
    assert everything(run) == before
    lock.release()
    for child in children:
        assert child.code == 3
        assert child.output.startswith("RunLockedError The run 'run' is being trained already"), child.output
    last = zygote.run(training(max_step=6, resume=True), home)
    assert last.wait() == 0, last.output
    assert finished(run) == {3, 6}
