from __future__ import annotations

import fcntl
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from darkit.errors import RunLockedError, RunReplacedError, StorageError
from darkit.runs.lock import RunLock, is_locked
from tests.runs.parts import line_of, names_in, python, wait_until

HOLD = """
    import sys
    from pathlib import Path
    from darkit.errors import RunLockedError
    from darkit.runs.lock import RunLock
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        lock = RunLock(Path(sys.argv[1]))
    except RunLockedError as error:
        print(error, flush=True)
    else:
        print("locked", flush=True)
        sys.stdin.readline()
"""


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_of_many_processes_one_gets_the_lock_and_the_others_an_error_with_the_runs_name(tmp_path: Path) -> None:
    folder = tmp_path / "gpt"
    folder.mkdir()
    with ExitStack() as stack:
        processes = [stack.enter_context(python(HOLD, folder)) for _ in range(6)]
        assert [line_of(process) for process in processes] == ["ready"] * 6
        for process in processes:
            print(file=process.stdin, flush=True)
        said = sorted(line_of(process) for process in processes)
        assert is_locked(folder)
    assert said == [
        *["Run 'gpt' is already being trained. Wait until it ends, or choose another name."] * 5,
        "locked",
    ]
    assert names_in(folder) == [".lock"]


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    with python(HOLD, tmp_path) as process:
        print(file=process.stdin, flush=True)
        assert [line_of(process), line_of(process)] == ["ready", "locked"]
        with pytest.raises(RunLockedError):
            RunLock(tmp_path)
        process.kill()
        process.wait()
    assert not is_locked(tmp_path)
    RunLock(tmp_path).release()


@pytest.mark.parametrize("how", ["fork", "exec"])
def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path, how: str) -> None:
    script = """
        import os, subprocess, sys
        from pathlib import Path
        from darkit.runs.lock import RunLock
        lock = RunLock(Path(sys.argv[1]))
        if sys.argv[2] == "fork":
            child = os.fork()
            if not child:
                sys.stdin.readline()  # a data worker that waits for its next order
                os._exit(0)
        else:
            child = subprocess.Popen(["cat"], close_fds=False).pid
        print(child, flush=True)
        os.waitpid(child, 0)
    """
    with python(script, tmp_path, how) as parent:
        child = int(line_of(parent))
        assert is_locked(tmp_path)
        parent.kill()
        parent.wait()
        assert is_alive(child)
        wait_until(lambda: not is_locked(tmp_path))  # the fork forgets the lock as its first act, or exec closes it
        RunLock(tmp_path).release()
        assert is_alive(child)


def test_a_forked_child_does_not_release_its_parents_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_locked(tmp_path)
    lock.release()
    assert not is_locked(tmp_path)


def test_the_same_process_cannot_lock_a_run_twice(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(RunLockedError, match=f"Run '{tmp_path.name}' is already being trained"):
        RunLock(tmp_path)
    lock.release()
    again = RunLock(tmp_path)
    lock.release()
    assert is_locked(tmp_path)
    again.release()


def test_is_locked_creates_no_file_and_does_not_block_a_lock(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "missing")
    assert names_in(tmp_path) == []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            is_locked(tmp_path)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(200):
            lock = RunLock(tmp_path)
            assert is_locked(tmp_path)
            lock.release()
    finally:
        ended.set()
        reader.join()


def test_a_missing_folder_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^Cannot lock the run in .*missing: No such file or directory\.$"):
        RunLock(tmp_path / "missing")


def test_a_refused_lock_leaks_no_descriptor(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        with pytest.raises(RunLockedError):
            RunLock(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    lock.release()


def test_is_locked_is_true_if_the_lock_file_cannot_be_opened(tmp_path: Path) -> None:
    assert is_locked(tmp_path / ("x" * 300))


def test_a_run_that_is_moved_while_its_lock_is_opened_has_one_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trash = tmp_path / "run", tmp_path / "trash"
    folder.mkdir()
    original, holders = fcntl.flock, []

    def move_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr("fcntl.flock", original)
        folder.rename(trash)
        folder.mkdir()
        holders.append(RunLock(folder))
        original(descriptor, how)

    monkeypatch.setattr("fcntl.flock", move_first)
    with pytest.raises(RunLockedError):
        RunLock(folder)
    assert is_locked(folder)
    assert not is_locked(trash)
    holders[0].release()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    (folder / ".lock").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="link"):
        RunLock(folder)
    assert not elsewhere.exists()


def test_check_detects_a_lost_lock_and_does_nothing_after_release(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.check()
    (tmp_path / ".lock").unlink()
    other = RunLock(tmp_path)
    with pytest.raises(RunReplacedError, match="its lock is lost"):
        lock.check()
    other.release()
    lock.check()  # creates and locks it again
    assert is_locked(tmp_path)
    lock.release()
    lock.check()
    assert not is_locked(tmp_path)


def test_a_file_system_with_changing_inode_numbers_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkit.runs.lock.is_at", lambda path, descriptor: False)
    lock = RunLock(tmp_path)
    lock.check()
    assert is_locked(tmp_path)
    lock.release()


def test_a_replaced_folder_is_not_locked_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = RunLock(folder)
    folder.rename(tmp_path / "elsewhere")
    folder.mkdir()
    with pytest.raises(RunReplacedError, match="it was deleted, moved or replaced"):
        lock.check()
    assert names_in(folder) == []
    lock.release()
