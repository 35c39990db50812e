"""Asked to stop: saved at the end of a step, with the exit code that the signal means."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import darkit
from darkit.engine.checkpoint import read_run_checkpoint
from darkit.runs.requests import request_stop
from darkit.runs.status import read_status
from tests.faults.parts import CHECKOUT, Child, Zygote, finished, last_logged, problems, state, training, wait_until


SLURM = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def assert_stopped_at_a_step(run: Path, reason: str) -> None:
    status = read_status(run)
    assert (status.state, reason in status.reason) == ("stopped", True), status
    checkpoint, content = read_run_checkpoint(run)
    assert checkpoint.step == content["current_step"] == status.step == last_logged(run)
    assert problems(run) == []


def begin(zygote: Zygote, home: Path, **environment: str) -> tuple[Child, Path]:
    """Starts a training, or goes on with it, and waits until it has saved something new."""
    run = home / "base" / "run"
    before = max(finished(run), default=0)
    child = zygote.run(training(), home, **environment)
    wait_until(lambda: max(finished(run), default=0) > before, f"a checkpoint after {before}: {child.output}")
    return child, run


def terminate(zygote: Zygote, home: Path, times: int) -> None:
    """Stops a training at random moments, again and again."""
    chosen = random.Random(times)
    for _ in range(times):
        child, run = begin(zygote, home)
        time.sleep(chosen.uniform(0, 0.03))  # the random moment is the point
        child.send(signal.SIGTERM)
        assert child.wait() == 128 + signal.SIGTERM, child.output
        assert_stopped_at_a_step(run, "SIGTERM")


def test_sigterm_at_twenty_moments_stops_at_a_step_and_goes_on_from_there(zygote: Zygote, home: Path) -> None:
    terminate(zygote, home, 20)


@pytest.mark.soak
def test_sigterm_at_two_hundred_moments_stops_at_a_step(zygote: Zygote, home: Path) -> None:
    terminate(zygote, home, 200)


def test_a_second_sigterm_ends_at_once_and_leaves_whole_files(zygote: Zygote, home: Path) -> None:
    chosen = random.Random(5)
    for _ in range(5):
        child, run = begin(zygote, home)
        promised = finished(run)
        child.send(signal.SIGTERM)
        time.sleep(chosen.uniform(0, 0.01))
        with contextlib.suppress(ProcessLookupError):  # it may have ended already
            child.send(signal.SIGTERM)
        # after the last thing is written the signal means what it means to every process
        assert child.wait() in (128 + signal.SIGTERM, -signal.SIGTERM), child.output
        assert promised <= finished(run)
        assert problems(run) == []
        assert state(run) in ("stopped", "crashed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_other_signals_stop_with_their_own_exit_code(zygote: Zygote, home: Path, number: signal.Signals) -> None:
    child, run = begin(zygote, home)
    child.send(number)
    assert child.wait() == 128 + number, child.output
    assert_stopped_at_a_step(run, number.name)


def test_a_slurm_job_that_is_warned_is_queued_again(zygote: Zygote, home: Path) -> None:
    programs = home.parent / "bin"
    programs.mkdir()
    scontrol = programs / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {home.parent}/asked\n')
    scontrol.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    child, run = begin(zygote, home, PATH=path, **SLURM)
    child.send(signal.SIGUSR1)
    assert child.wait() == 128 + signal.SIGUSR1, child.output
    assert (home.parent / "asked").read_text() == "requeue 42\n"
    assert_stopped_at_a_step(run, "SIGUSR1")


def test_a_request_in_the_run_directory_is_honoured_and_taken_away(zygote: Zygote, home: Path) -> None:
    child, run = begin(zygote, home)
    request_stop(run, "the tests")
    assert child.wait() == 0, child.output
    assert_stopped_at_a_step(run, "the tests")
    assert not (run / "stop.json").exists()


def test_a_request_that_is_older_than_the_training_is_forgotten(zygote: Zygote, home: Path) -> None:
    child, run = begin(zygote, home)
    child.send(signal.SIGTERM)
    child.wait()
    request_stop(run, "somebody long ago")
    last = max(finished(run))
    child = zygote.run(training(max_step=last + 5), home)
    assert child.wait() == 0, child.output
    assert state(run) == "finished"


def test_the_command_stops_a_run_that_trains(zygote: Zygote, home: Path) -> None:
    child, run = begin(zygote, home)
    answer = subprocess.run(
        [sys.executable, "-m", "darkit", "stop", "run"], cwd=CHECKOUT, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("run is stopped at step ")
    assert child.wait() == 0
    assert_stopped_at_a_step(run, "darkit stop")


def test_an_interpreter_at_which_somebody_sits_survives_ctrl_c(home: Path) -> None:
    code = training().replace("darkit.fit(", "run = darkit.fit(")
    process = subprocess.Popen(
        [sys.executable, "-i", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    run = home / "base" / "run"
    wait_until(lambda: finished(run), "a checkpoint")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(
        "print(run.status, run.details.step == run.latest_checkpoint().step)\n", timeout=120
    )
    assert "stopped True" in output
    assert process.returncode == 0
    assert darkit.load("run").status == "stopped"
