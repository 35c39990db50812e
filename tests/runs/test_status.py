from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import files, status
from darkit.runs.lock import RunLock
from darkit.runs.status import Status, StatusWriter, Watcher, read_status
from tests.runs.parts import line_of, names_in, python, wait_until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "HEARTBEAT", 0.01)


def on_disk(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return content


def test_a_run_is_running_until_its_writer_is_closed(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    before = time.time()
    writer = StatusWriter(tmp_path, 100, lambda: 7)
    running = read_status(tmp_path)
    assert (running.state, running.step, running.max_step, running.reason) == ("running", 7, 100, "")
    assert (running.pid, running.host) == (os.getpid(), socket.gethostname())
    assert before <= running.started <= running.heartbeat <= time.time()
    writer.close(status.FINISHED)
    lock.release()
    finished = read_status(tmp_path)
    assert (finished.state, finished.step, finished.started) == ("finished", 7, running.started)
    assert names_in(tmp_path) == [".lock", "status.json"]


@pytest.mark.usefixtures("quick")
def test_each_heartbeat_has_the_current_step(tmp_path: Path) -> None:
    steps = [0]
    lock = RunLock(tmp_path)
    writer = StatusWriter(tmp_path, None, lambda: steps[0])
    first = read_status(tmp_path)
    steps[0] = 12
    wait_until(lambda: read_status(tmp_path).step == 12)
    later = read_status(tmp_path)
    assert later.heartbeat > first.heartbeat
    assert (later.started, later.max_step) == (first.started, None)
    writer.close(status.FINISHED)
    assert "darkit-status" not in [thread.name for thread in threading.enumerate()]
    lock.release()


@pytest.mark.usefixtures("quick")
def test_no_late_heartbeat_overwrites_the_final_status(tmp_path: Path) -> None:
    beating, go_on = threading.Event(), threading.Event()

    def progress() -> int:
        if threading.current_thread().name == "darkit-status":
            beating.set()
            go_on.wait()
        return 1

    writer = StatusWriter(tmp_path, None, progress)
    assert beating.wait(60)
    closer = threading.Thread(target=writer.close, args=(status.FINISHED,))
    closer.start()
    closer.join(0.1)  # a close that does not wait for the beat has written by then
    go_on.set()
    closer.join()
    wait_until(lambda: "darkit-status" not in [thread.name for thread in threading.enumerate()])
    assert read_status(tmp_path).state == "finished"


@pytest.mark.usefixtures("quick")
def test_a_failed_write_is_logged_and_retried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = StatusWriter(tmp_path, None, lambda: 3)
    with caplog.at_level(logging.WARNING):
        path = tmp_path / "status.json"
        while not path.is_dir():  # a beat may come in between
            path.unlink(missing_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                continue
        wait_until(lambda: bool(caplog.messages))
        path.rmdir()
        wait_until(path.is_file)
    writer.close(status.FINISHED)
    assert caplog.messages[0].startswith("The status of the run could not be written and will be tried again: Cannot")
    assert read_status(tmp_path).state == "finished"
    assert names_in(tmp_path) == ["status.json"]


def test_a_crash_keeps_its_reason_and_traceback(tmp_path: Path) -> None:
    writer = StatusWriter(tmp_path, 5, lambda: 2)
    writer.close(status.CRASHED, "ValueError: ü", "Traceback ...\nValueError: ü\n")
    crashed = read_status(tmp_path)
    assert (crashed.state, crashed.reason, crashed.traceback) == (
        "crashed",
        "ValueError: ü",
        "Traceback ...\nValueError: ü\n",
    )


def test_a_traceback_with_lone_surrogates_is_written(tmp_path: Path) -> None:
    writer = StatusWriter(tmp_path, 5, lambda: 2)
    writer.close(status.CRASHED, os.fsdecode(b"no file caf\xe9"))
    assert read_status(tmp_path).reason == os.fsdecode(b"no file caf\xe9")


def test_a_killed_process_shows_as_crashed_with_its_last_step(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from darkit.runs.lock import RunLock
        from darkit.runs.status import StatusWriter
        lock = RunLock(Path(sys.argv[1]))
        writer = StatusWriter(Path(sys.argv[1]), 100, lambda: 42)
        print("running", flush=True)
        sys.stdin.readline()
    """
    with python(script, tmp_path) as process:
        assert line_of(process) == "running"
        assert read_status(tmp_path).state == "running"
        process.kill()
        process.wait()
        left = on_disk(tmp_path)
        seen = read_status(tmp_path)
    assert left["state"] == "running"
    assert (seen.state, seen.step, seen.max_step, seen.pid) == ("crashed", 42, 100, process.pid)
    assert (
        seen.reason
        == "The process ended without a final status: it was killed, its machine went down, or its disk was full."
    )
    assert on_disk(tmp_path) == left, "a reader writes nothing"


def test_the_status_of_another_host_is_returned_unchanged(tmp_path: Path) -> None:
    files.write_json(tmp_path / "status.json", {"state": "running", "step": 4, "host": "another-machine"})
    assert read_status(tmp_path) == Status(state="running", step=4, host="another-machine")


def test_a_locked_run_without_a_status_is_running(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    assert read_status(tmp_path) == Status(state="running")
    lock.release()
    assert read_status(tmp_path).state == "crashed"


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"state": "runn', b"[]", b"\xff", b"{}", b'{"step": 3}', b'{"state": 3}', b'{"state": null}'],
)
def test_an_unreadable_status_is_a_crash_with_that_reason(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "status.json").write_bytes(content)
    assert read_status(tmp_path) == Status(state="crashed", reason="The run has no readable status.json.")


def test_unknown_values_and_those_of_a_wrong_type_are_ignored(tmp_path: Path) -> None:
    values = {
        "state": "finished",
        "step": "many",
        "max_step": [1],
        "started": None,
        "host": 3,
        "reason": {},
        "later": 1,
    }
    files.write_json(tmp_path / "status.json", values)
    assert read_status(tmp_path) == Status(state="finished")


def test_every_field_is_read_back(tmp_path: Path) -> None:
    values = {
        "state": "stopped",
        "step": 3,
        "max_step": 4,
        "started": 1.5,
        "heartbeat": 2,
        "host": "h",
        "pid": 7,
        "reason": "r",
        "traceback": "t",
    }
    files.write_json(tmp_path / "status.json", values)
    assert read_status(tmp_path) == Status(**values)
    assert on_disk(tmp_path) == values


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the monotonic clock of the module by one that the test sets."""
    now = [1000.0]

    class Time:
        monotonic = staticmethod(lambda: now[0])
        time = staticmethod(time.time)

    monkeypatch.setattr(status, "time", Time)
    return now


class Looked:
    """A writer whose thread has ended; `look` does one check as the thread would."""

    def __init__(self, folder: Path, signs: list[int]) -> None:
        self.writer = StatusWriter(folder, 9, lambda: 0, signs=lambda: signs[0])
        self.writer._ended.set()
        self.writer._thread.join()

    def look(self) -> tuple[str, str]:
        return self.writer._look()


def test_a_run_without_progress_is_stalled_until_it_makes_progress(tmp_path: Path, clock: list[float]) -> None:
    signs = [0]
    looked = Looked(tmp_path, signs)
    clock[0] += status.STALL
    assert looked.look() == ("running", "")
    clock[0] += 1
    assert looked.look() == ("stalled", "No progress for 61 s.")
    signs[0] = 1
    assert looked.look() == ("running", "")


def test_a_slow_run_stalls_after_ten_times_its_longest_pause(tmp_path: Path, clock: list[float]) -> None:
    signs = [0]
    looked = Looked(tmp_path, signs)
    clock[0] += 50
    signs[0] = 1
    assert looked.look() == ("running", "")
    clock[0] += 500
    assert looked.look() == ("running", "")
    clock[0] += 1
    assert looked.look() == ("stalled", "No progress for 501 s.")


def test_a_stall_is_written_at_once_and_ends_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LOOK", 0.005)
    monkeypatch.setattr(status, "STALL", 0.05)
    monkeypatch.setattr(status, "HEARTBEAT", 3600.0)
    signs = [0]
    lock = RunLock(tmp_path)
    writer = StatusWriter(tmp_path, 9, lambda: 0, signs=lambda: signs[0])
    wait_until(lambda: read_status(tmp_path).state == "stalled")
    assert read_status(tmp_path).reason.startswith("No progress for ")
    signs[0] = 1
    wait_until(lambda: read_status(tmp_path).state == "running")
    writer.close(status.FINISHED)
    lock.release()
    assert read_status(tmp_path).state == "finished"


def test_a_locked_run_without_a_heartbeat_is_stalled(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    beat = time.time() - status.SILENCE - 2
    files.write_json(
        tmp_path / "status.json", {"state": "running", "heartbeat": beat, "host": socket.gethostname(), "step": 3}
    )
    seen = read_status(tmp_path)
    assert (seen.state, seen.step) == ("stalled", 3)
    assert seen.reason == "The process is alive, but sent no heartbeat for 32 s."
    lock.release()
    assert read_status(tmp_path).state == "crashed"


@pytest.mark.parametrize("skew", [-1e6, 0.0, 1e6])
def test_a_run_on_another_host_without_a_heartbeat_has_crashed_regardless_of_its_clock(
    tmp_path: Path, clock: list[float], skew: float
) -> None:
    def beat(moment: float) -> None:
        files.write_json(
            tmp_path / "status.json", {"state": "running", "heartbeat": moment + skew, "host": "elsewhere", "step": 3}
        )

    watcher = Watcher()
    beat(time.time())
    assert watcher.read(tmp_path).state == "running"
    clock[0] += status.SILENCE
    assert watcher.read(tmp_path).state == "running"
    beat(time.time() + 5)
    clock[0] += 1
    assert watcher.read(tmp_path).state == "running"
    clock[0] += status.SILENCE + 1
    gone = watcher.read(tmp_path)
    assert (gone.state, gone.step) == ("crashed", 3)
    assert gone.reason == "The process on elsewhere sent no heartbeat for 31 s."
    beat(time.time() + 9)
    assert watcher.read(tmp_path).state == "running"


def test_a_watcher_does_not_change_the_status_of_ended_and_local_runs(tmp_path: Path, clock: list[float]) -> None:
    watcher = Watcher()
    files.write_json(tmp_path / "status.json", {"state": "running", "heartbeat": 1, "host": "elsewhere"})
    assert watcher.read(tmp_path).state == "running"
    clock[0] += 100
    files.write_json(tmp_path / "status.json", {"state": "finished", "heartbeat": 1, "host": "elsewhere"})
    assert watcher.read(tmp_path).state == "finished"
    files.write_json(tmp_path / "status.json", {"state": "running", "host": socket.gethostname()})
    assert watcher.read(tmp_path) == read_status(tmp_path)


def test_watches_are_called_repeatedly_and_an_error_of_one_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(status, "LOOK", 0.005)
    monkeypatch.setattr(status, "HEARTBEAT", 0.01)
    called = {"bad": 0, "good": 0}

    def bad() -> None:
        called["bad"] += 1
        raise ZeroDivisionError

    def good() -> None:
        called["good"] += 1

    with caplog.at_level(logging.WARNING):
        writer = StatusWriter(tmp_path, 9, lambda: called["good"], watches=(bad, good))
        wait_until(lambda: min(called.values()) > 3)
        wait_until(lambda: read_status(tmp_path).step > 3 or on_disk(tmp_path)["step"] > 3)
        writer.close(status.FINISHED)
    assert caplog.messages == ["A regular task of the run failed and will be tried again."]
    assert "ZeroDivisionError" in caplog.text


def test_a_last_step_that_is_known_late_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LOOK", 0.005)
    monkeypatch.setattr(status, "HEARTBEAT", 3600.0)
    writer = StatusWriter(tmp_path, None, lambda: 1)
    assert on_disk(tmp_path)["max_step"] is None
    writer.max_step = 9
    wait_until(lambda: on_disk(tmp_path)["max_step"] == 9)
    writer.close(status.FINISHED)
