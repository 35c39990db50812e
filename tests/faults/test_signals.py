"""Asked to stop: saved at the end of a step, with the exit code that the signal means."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from select import select

import pytest

import darkit
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.runs.requests import request_stop
from darkit.runs.status import read_status
from tests.children import CHECKOUT, Child, Zygote
from tests.faults.parts import finished, last_logged, problems, state, training, wait_until


def assert_stopped_at_a_step(run: Path, reason: str) -> None:
    status = read_status(run)
    assert (status.state, reason in status.reason) == ("stopped", True), status
    checkpoint, content = read_run_checkpoint(run)
    assert checkpoint.step == content["current_step"] == status.step == last_logged(run)
    assert problems(run) == []


def begin(zygote: Zygote, home: Path, **environment: str):  # type: ignore[no-untyped-def]
    run = home / "base" / "run"
    before = max(finished(run), default=0)
    child = zygote.run(training(), home, **environment)
    wait_until(lambda: max(finished(run), default=0) > before, f"a checkpoint after {before}: {child.output}")
    return child, run


@pytest.mark.parametrize("moments", [6, pytest.param(40, marks=pytest.mark.soak)])
def test_sigterm_at_random_moments_stops_at_a_step_and_goes_on_from_there(
    zygote: Zygote, home: Path, moments: int
) -> None:
    chosen = random.Random(moments)
    for _ in range(moments):
        child, run = begin(zygote, home)
        time.sleep(chosen.uniform(0, 0.03))  # the random moment is the point
        child.send(signal.SIGTERM)
        assert child.wait() == 128 + signal.SIGTERM, child.output
        assert_stopped_at_a_step(run, "SIGTERM")


def test_a_second_sigterm_ends_at_once_and_leaves_whole_files(zygote: Zygote, home: Path) -> None:
    hanging = "import time, torch\ntorch.Tensor.backward = lambda *_: time.sleep(600)\n" + training()
    child = zygote.run(hanging, home)
    run = home / "base" / "run"
    wait_until(lambda: (run / "status.json").exists(), f"the run: {child.output}")
    wait_until(lambda: not sent(child), "the end")
    assert child.wait() == 128 + signal.SIGTERM, child.output
    assert "SIGTERM: saving" in child.output
    assert problems(run) == []


def sent(child: Child) -> bool:
    """Send SIGTERM if the process is there."""
    time.sleep(0.05)
    status = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    if status != "Z":
        child.send(signal.SIGTERM)
    return status != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
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
    child, run = begin(zygote, home, SLURM_JOB_ID="42", PATH=path)
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
    answer = subprocess.run([zygote.darkit, "stop", "run"], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
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


@pytest.mark.soak
def test_two_interrupts_leave_an_interpreter_alive_and_the_last_step_saved(home: Path) -> None:
    code = (
        "import time, torch\nbackward, calls = torch.Tensor.backward, []\ndef slow(loss, *rest, **named):\n"
        "    calls.append(1)\n    backward(loss, *rest, **named)\n    time.sleep(600 * (len(calls) == 5))\n"
        "torch.Tensor.backward = slow\n" + training(save_step_interval=0)
    )
    with subprocess.Popen(
        [sys.executable, "-i", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        log = home / "base" / "run" / "train_log.csv"
        wait_until(lambda: log.exists() and len(log.read_bytes().splitlines()) > 4, "four steps")
        process.send_signal(signal.SIGINT)
        heard, last = b"", time.monotonic()
        while b">>> " not in heard:
            if b"saving after" in heard and b"Error" not in heard and time.monotonic() > last + 5:
                process.send_signal(signal.SIGINT)  # not again while it ends
                last = time.monotonic()
            heard += os.read(process.stderr.fileno(), 4096) if select([process.stderr], [], [], 0.3)[0] else b""
        output, _ = process.communicate(b"print('alive', darkit.load('run').latest_checkpoint().step)\n", timeout=60)
    assert b"alive 4" in output
    assert darkit.load("run").status == "stopped"
