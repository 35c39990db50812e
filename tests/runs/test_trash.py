from __future__ import annotations

import time
from pathlib import Path

import pytest

from darkit.errors import NameInvalidError, RunLockedError, RunNotFoundError
from darkit.runs import files
from darkit.runs.lock import RunLock
from darkit.runs.trash import move_to_trash


def make(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    files.write_json(folder / files.RUN, {"id": "1"})
    return folder


def test_a_deleted_run_lies_whole_in_the_trash_beside_others_of_its_name(home: Path) -> None:
    root = home / "base"
    moved = []
    for _ in range(3):
        make(root, "one")
        moved.append(move_to_trash(root, "one"))
    assert not (root / "one").exists()
    assert len(set(moved)) == 3
    assert moved[0] == home / ".trash" / "one"
    assert all((path / files.RUN).is_file() for path in moved)


def test_a_run_that_trains_is_not_deleted(home: Path) -> None:
    folder = make(home / "base", "one")
    lock = RunLock(folder)
    with pytest.raises(RunLockedError):
        move_to_trash(home / "base", "one")
    lock.release()
    status = {"state": "running", "host": "elsewhere", "heartbeat": time.time()}
    files.write_json(folder / files.STATUS, status)
    with pytest.raises(RunLockedError, match="elsewhere"):
        move_to_trash(home / "base", "one")
    assert folder.is_dir()
    files.write_json(folder / files.STATUS, {**status, "heartbeat": time.time() - 3600})
    assert move_to_trash(home / "base", "one").is_dir()


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "", "a\0b", ".trash"])
def test_what_is_no_name_is_refused(home: Path, name: str) -> None:
    (home / "base").mkdir(parents=True)
    with pytest.raises(NameInvalidError):
        move_to_trash(home / "base", name)


def test_a_missing_run_and_a_link_are_refused(home: Path, tmp_path: Path) -> None:
    root = home / "base"
    root.mkdir(parents=True)
    with pytest.raises(RunNotFoundError):
        move_to_trash(root, "nothing")
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(NameInvalidError):
        move_to_trash(root, "link")
    assert (root / "link").is_symlink()
