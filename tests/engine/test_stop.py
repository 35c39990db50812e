"""A request to stop: the first reason stays, the process ends as the signal would have ended it."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from darkit.engine.stop import SIGNALS, SignalGuard, StopRequest, StopTraining, is_interactive, requeue
from tests.runs.parts import line_of, python


@pytest.fixture
def guard() -> Any:
    """It listens until the test is over."""
    made = SignalGuard(StopRequest())
    made.install()
    yield made
    made.uninstall()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_becomes_a_request(guard: SignalGuard, number: signal.Signals, capfd: Any) -> None:
    assert guard.request.reason == ""
    signal.raise_signal(number)
    assert guard.request.reason == f"Stopped by {number.name}."
    assert guard.request.signal == number
    again = "" if number == signal.SIGHUP else "; once more stops at once"
    assert capfd.readouterr().err == f"\n{number.name}: saving after this step, then stopping{again}.\n"


def test_a_repeated_hangup_changes_nothing(guard: SignalGuard) -> None:
    signal.raise_signal(signal.SIGHUP)
    guard._received -= 60  # as if the second came a minute later
    signal.raise_signal(signal.SIGHUP)  # the process lives
    assert guard.request.signal == signal.SIGHUP


def test_a_hangup_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    guard = SignalGuard(StopRequest())
    try:
        guard.install()
        signal.raise_signal(signal.SIGHUP)
        assert guard.request.reason == ""
        guard.uninstall()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        guard.uninstall()
        signal.signal(signal.SIGHUP, before)


def test_a_hangup_stops_although_the_terminal_is_gone(guard: SignalGuard) -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        signal.raise_signal(signal.SIGHUP)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert guard.request.signal == signal.SIGHUP


def test_the_first_reason_stays() -> None:
    request = StopRequest()
    request.ask("one")
    request.ask("two", signal.SIGTERM)
    assert (request.reason, request.signal) == ("one", None)


def test_the_signals_are_given_back_to_whoever_had_them(guard: SignalGuard) -> None:
    def own(*arguments: Any) -> None:
        """Somebody's handler."""

    guard.uninstall()
    interrupt = signal.getsignal(signal.SIGINT)
    before = signal.signal(signal.SIGTERM, own)
    try:
        guard.install()
        guard.install()  # again, after somebody else may have taken them
        assert signal.getsignal(signal.SIGTERM) == guard._handle
        guard.uninstall()
        guard.uninstall()
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGINT) == interrupt
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_of_the_programs_own_stays_where_a_launcher_may_end_it() -> None:
    received = []
    before = signal.signal(signal.SIGTERM, lambda *given: received.append(given[0]))
    guard = SignalGuard(StopRequest())
    try:
        guard.install_for_launcher(lambda: None)
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert guard.request.reason == ""
    finally:
        guard.uninstall()
        signal.signal(signal.SIGTERM, before)


def test_where_a_launcher_may_end_it_a_sigterm_is_raised_until_the_end_is_written() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    guard = SignalGuard(StopRequest())
    try:
        guard.install_for_launcher(lambda: None)
        with pytest.raises(StopTraining):
            signal.raise_signal(signal.SIGTERM)
        guard.hold()
        signal.raise_signal(signal.SIGTERM)  # raises nothing
        assert guard.request.signal == signal.SIGTERM
        guard.uninstall()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        guard.uninstall()
        signal.signal(signal.SIGTERM, before)


REPLACED = """
import os, signal, time
from darkit.engine import stop
stop._BLOCKED = 0.2
guard = stop.SignalGuard(stop.StopRequest())
guard.install_for_launcher(lambda: print("ended", flush=True))
{then}
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)  # longer than a process that is blocked would live
print("alive", guard.request.reason, flush=True)
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("signal.signal(signal.SIGTERM, lambda *given: print('own', flush=True))", "own\nalive \n"),
        ("guard.install()", "alive Stopped by SIGTERM.\n"),
    ],
)
def test_a_handler_that_is_installed_later_is_given_all_the_time_it_takes(then: str, said: str) -> None:
    command = [sys.executable, "-c", REPLACED.format(then=then)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == said


def test_outside_the_main_thread_it_does_nothing() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    guard = SignalGuard(StopRequest())
    thread = threading.Thread(target=lambda: (guard.install(), guard.uninstall()))
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_the_process_ends_with_the_code_of_the_signal(number: signal.Signals, code: int) -> None:
    request = StopRequest()
    request.ask("why", number)
    with pytest.raises(SystemExit) as caught:
        request.end_process()
    assert caught.value.code == code


def test_a_request_that_no_signal_made_ends_no_process() -> None:
    request = StopRequest()
    request.end_process()
    request.ask("darkit stop")
    request.end_process()


def test_an_interactive_interpreter_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert is_interactive()
    request = StopRequest()
    request.ask("why", signal.SIGINT)
    request.end_process()


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")])
def test_a_second_signal_ends_the_process_at_once(first: str, second: str) -> None:
    script = """
        import time
        from darkit.engine.stop import SignalGuard, StopRequest
        guard = SignalGuard(StopRequest())
        guard.install()
        print("ready", flush=True)
        while not guard.request.reason:
            time.sleep(0.005)
        print(guard.request.reason, flush=True)
        time.sleep(60)
    """
    with python(script) as process:
        assert line_of(process) == "ready"
        process.send_signal(getattr(signal, first))
        assert line_of(process) == f"Stopped by {first}."
        while process.poll() is None:  # very soon after the first it is taken for the same
            process.send_signal(getattr(signal, second))
            time.sleep(0.05)
        assert process.wait() == 128 + getattr(signal, second)


def test_a_signal_right_after_a_fork_ends_the_child(guard: SignalGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = SignalGuard.forget

    def forget_late(self: SignalGuard) -> None:
        signal.raise_signal(signal.SIGTERM)
        forget(self)

    monkeypatch.setattr(SignalGuard, "forget", forget_late)
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert guard.request.reason == ""


def test_two_signals_at_once_are_one(guard: SignalGuard) -> None:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert guard.request.signal == signal.SIGTERM


@pytest.mark.parametrize("sits_at", ["prompt", "notebook"])
def test_in_an_interactive_interpreter_the_second_signal_is_raised_and_the_process_survives(
    guard: SignalGuard, monkeypatch: pytest.MonkeyPatch, sits_at: str
) -> None:
    if sits_at == "prompt":
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    else:
        monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    signal.raise_signal(signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            while True:
                time.sleep(0.02)
                signal.raise_signal(number)
    assert guard.request.signal == signal.SIGINT


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``scontrol`` that writes down its arguments, or fails for the job 13."""
    program, told = tmp_path / "scontrol", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n[ "$2" != 13 ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return told


def test_a_warned_job_is_queued_again_before_the_process_ends(scheduler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    request = StopRequest()
    request.ask("why", signal.SIGUSR1)
    with pytest.raises(SystemExit):
        request.end_process()
    assert scheduler.read_text() == "requeue 4711\n"
    terminated = StopRequest()
    terminated.ask("why", signal.SIGTERM)
    with pytest.raises(SystemExit):
        terminated.end_process()
    assert scheduler.read_text() == "requeue 4711\n"


def test_without_a_job_or_without_slurm_nothing_is_queued(scheduler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", "/nowhere")
    assert not requeue()
    assert not scheduler.exists()


def test_a_refusal_of_slurm_is_raised(scheduler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    with pytest.raises(subprocess.CalledProcessError):
        requeue()
    assert scheduler.read_text() == "requeue 13\n"


def test_leaving_a_loop_passes_an_except_exception() -> None:
    def loop() -> None:
        try:
            raise StopTraining
        except Exception:
            pytest.fail("it was caught")

    with pytest.raises(StopTraining):
        loop()
