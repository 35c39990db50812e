"""The failure, death or stop of one process ends all, with its reason in the run and no checkpoint lost."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.runs import Run
from tests.children import Zygote
from tests.faults.parts import finished, problems, state, temporary_files, wait_until
from tests.faults.several import Several

TWO = {"device_num": 2, "name": "run"}


@pytest.fixture
def several(zygote: Zygote, tmp_path: Path, home: Path) -> Several:
    return Several(zygote, tmp_path, home)


def run_in(home: Path) -> Run:
    """Return the run of `TWO`."""
    return Run(home / "base" / "run")


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise:1:7", "Process 1 of 2 failed: ValueError: this process fails"),
        ("raise:0:7", "ValueError: this process fails"),
        ("exit:1:7", "Process 1 of 2 was killed or ended without an error"),
        ("nan:1:7", "The loss is not finite at step 8"),  # the gradients are shared: either process may see it first
    ],
)
def test_the_run_says_which_process_failed_and_why(several: Several, home: Path, fault: str, reason: str) -> None:
    child = several.alone(TWO | {"nan_policy": "stop"}, FAULT=fault)
    child.wait()
    details = run_in(home).details
    assert (details.state, finished(run_in(home).path)) == ("crashed", {5}), child.output
    assert reason in details.reason
    if "raise:1" in fault:
        assert 'raise ValueError("this process fails")' in details.traceback, "the traceback of the process that failed"
    wait_until(lambda: not _lives(child.pid), "the end of every process of the group")


def test_a_process_that_waits_in_vain_is_ended_and_its_run_too(several: Several, home: Path) -> None:
    """The failed process stays alive: its connections stay open, so torch alone would wait for half an hour."""
    child = several.alone(TWO, FAULT="raise:1:7", STAY="1")
    assert child.wait() == 1
    assert "error: Process 1 of 2 failed: ValueError: this process fails" in child.output
    assert run_in(home).details.reason == "Process 1 of 2 failed: ValueError: this process fails"
    assert state(run_in(home).path) == "crashed"
    child.kill_rest()


def test_a_signal_ends_the_first_process_while_it_waits_for_the_others(several: Several, home: Path) -> None:
    child = several.alone(TWO, FAULT="late:1:0")
    wait_until(lambda: run_in(home).path.exists() and "waits" in child.output, "the second process")
    child.send(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM
    assert not run_in(home).path.exists(), "nothing had begun"
    child.kill_rest()


def kill_and_resume(several: Several, home: Path, fault: str) -> None:
    """Kill a process, check that nothing is lost and the other one ends, and resume to the end."""
    child = several.alone(TWO, FAULT=fault)
    child.wait()
    run = run_in(home)
    wait_until(lambda: not _lives(child.pid), "the end of every process of the group", limit=30)
    assert state(run.path) == "crashed", child.output
    assert problems(run.path) == []
    kept = finished(run.path)
    again = several.alone(TWO | {"resume": "auto"})
    assert again.wait() == 0, again.output
    assert kept <= finished(run.path)
    assert temporary_files(run.path) == []


@pytest.fixture(scope="module")
def straight(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two processes that nobody killed."""
    folder = tmp_path_factory.mktemp("straight")
    child = Several(zygote, folder, folder).alone(TWO)
    assert child.wait() == 0, child.output
    return run_in(folder)


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 100))])
def test_a_process_killed_at_random_loses_no_checkpoint_and_the_resumed_run_is_exact(
    several: Several, home: Path, straight: Run, seed: int
) -> None:
    chosen = random.Random(seed)
    kind, rank = ("save", 0) if seed % 3 == 2 else ("kill", chosen.randrange(2))
    kill_and_resume(several, home, f"{kind}:{rank}:{chosen.randrange(1, 20)}")
    contents = [read_run_checkpoint(run.path)[1] for run in (straight, run_in(home))]
    assert list(differences(*contents)) == []
    logs = [run.log().drop("time") for run in (straight, run_in(home))]
    assert logs[0].equals(logs[1])


def test_torchrun_restarts_the_processes_and_the_run_goes_on_without_a_name(
    several: Several, home: Path, straight: Run
) -> None:
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    child = several.torchrun(options, {"resume": "auto"}, FAULT="kill:1:7")
    assert child.wait() == 0, child.output
    (path,) = (home / "base").iterdir()
    assert f"Resuming run '{path.name}' from step 5" in child.output
    contents = [read_run_checkpoint(run.path)[1] for run in (straight, Run(path))]
    assert list(differences(*contents)) == []


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
