"""How a training hears that it should end: signals in real processes, and what is left of them afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from darkit.engine.stop import SIGNALS, SignalGuard, StopRequest, requeue
from tests.runs.parts import line_of, python

LISTENING = """
    import os, signal, sys, time
    from darkit.engine.stop import SignalGuard, StopRequest
    request = StopRequest()
    SignalGuard(request).install()
    print("ready", flush=True)
    while not request.reason:
        time.sleep(0.001)
    print(request.reason, flush=True)
    if len(sys.argv) > 1:
        signal.pause()
    request.end_process()
    print("survived", flush=True)
"""


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_becomes_a_request_and_then_the_exit_code_that_it_means(number: signal.Signals, code: int) -> None:
    with python(LISTENING) as process:
        assert line_of(process) == "ready"
        process.send_signal(number)
        assert line_of(process) == f"It was asked to stop by {number.name}."
        assert process.wait(60) == code
        assert line_of(process) == ""


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    with python(LISTENING, "wait") as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "It was asked to stop by SIGTERM."
        process.send_signal(second)
        assert process.wait(60) == 128 + second


def test_somebody_who_sits_at_the_interpreter_keeps_it(tmp_path: Path) -> None:
    script = "import sys; sys.ps1 = '>>> '\n" + "\n".join(line[4:] for line in LISTENING.splitlines())
    with python(script) as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert line_of(process) == "It was asked to stop by SIGINT."
        assert line_of(process) == "survived"
        assert process.wait(60) == 0


def test_the_first_reason_stays() -> None:
    request = StopRequest()
    request.ask("first", signal.SIGTERM)
    request.ask("second", signal.SIGINT)
    assert (request.reason, request.signal) == ("first", signal.SIGTERM)


def test_a_request_without_a_signal_ends_no_process() -> None:
    request = StopRequest()
    request.end_process()
    request.ask("by hand")
    request.end_process()


def test_the_handlers_of_before_are_there_again_afterwards() -> None:
    before = handlers()
    guard = SignalGuard(StopRequest())
    guard.install()
    assert all(now is not then for now, then in zip(handlers(), before, strict=True))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # somebody takes one in between
    guard.install()
    guard.uninstall()
    assert handlers() == before
    guard.uninstall()
    assert handlers() == before


def test_a_guard_that_is_used_again_counts_its_signals_anew() -> None:
    script = """
        import os, signal
        from darkit.engine.stop import SignalGuard, StopRequest
        guard = SignalGuard(StopRequest())
        for _ in range(2):
            guard.install()
            os.kill(os.getpid(), signal.SIGUSR1)  # the second one while it listens ends the process
            guard.uninstall()
        print("alive", flush=True)
    """
    with python(script) as process:
        assert line_of(process) == "alive"


def test_outside_the_main_thread_it_lets_the_signals_alone() -> None:
    before = handlers()
    guard = SignalGuard(StopRequest())
    thread = threading.Thread(target=guard.install)
    thread.start()
    thread.join()
    assert handlers() == before
    guard.uninstall()
    assert handlers() == before


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's program, which notes what it was asked and ends with the code in ``code``."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    (tmp_path / "code").write_text("0")
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit $(cat {tmp_path}/code)\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_slurm_job_is_queued_again(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert requeue()
    assert (scontrol / "asked").read_text() == "requeue 17\n"


def test_without_a_job_nothing_is_queued(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue()
    assert not (scontrol / "asked").exists()


def test_in_a_job_without_slurms_program_nothing_is_queued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not requeue()


def test_a_slurm_that_refuses_is_told_and_the_exit_code_stays(scontrol: Path) -> None:
    (scontrol / "code").write_text("1")
    script = (
        "import signal; from darkit.engine.stop import StopRequest; request = StopRequest(); "
        "request.ask('x', signal.SIGUSR1); request.end_process()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"SLURM_JOB_ID": "17"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 138
    assert "SLURM did not queue job 17 again" in result.stderr
