from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from darkit.errors import NameInvalidError, RunExistsError, RunLockedError, RunNotFoundError, StorageError
from darkit.runs import files
from darkit.runs.lock import RunLock
from darkit.runs.trash import Deleted, delete_for_good, list_trash, move_to_trash, remove_leftovers, restore


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
    assert all(path.parent.parent == home / ".trash" and path.name == "one" for path in moved)
    assert all((path / files.RUN).is_file() for path in moved)
    assert sorted(one.folder for one in list_trash(root)) == sorted(moved)
    assert {one.name for one in list_trash(root)} == {"one"}


def test_the_latest_deletion_comes_back_or_the_one_that_is_named(home: Path) -> None:
    root = home / "base"
    for number in range(3):
        files.write_json(make(root, "one") / "number.json", {"n": number})
        move_to_trash(root, "one")
    first = list_trash(root)[-1]
    restore(root, "one")
    assert files.read_json(root / "one" / "number.json") == {"n": 2}
    with pytest.raises(RunExistsError):
        restore(root, "one")
    restore(root, "one", new="two", deletion=first.deletion)
    assert files.read_json(root / "two" / "number.json") == {"n": 0}
    assert [one.name for one in list_trash(root)] == ["one"]
    assert len(list((home / ".trash").iterdir())) == 1  # no empty folder is left
    with pytest.raises(RunNotFoundError, match="no deletion 'never'"):
        restore(root, "one", new="three", deletion="never")
    with pytest.raises(RunNotFoundError, match="Did you mean 'one'"):
        restore(root, "ones")


def test_the_longest_name_is_deleted_and_comes_back(home: Path) -> None:
    root, name = home / "base", "模" * 80  # 240 bytes
    make(root, name)
    move_to_trash(root, name)
    make(root, name)
    move_to_trash(root, name)
    restore(root, name)
    assert (root / name / files.RUN).is_file()


def test_what_earlier_versions_deleted_comes_back(home: Path) -> None:
    root = home / "base"
    root.mkdir(parents=True)
    make(home / ".trash", "one")
    make(home / ".trash", "one-20261124-153012-2")
    make(home / ".trash", "20261124-153012-2")  # was the name of a run
    assert sorted(one.name for one in list_trash(root)) == ["20261124-153012-2", "one", "one"]
    for new in ("a", "b"):
        restore(root, "one", new=new)
    restore(root, "20261124-153012-2")
    assert list_trash(root) == []
    assert len(list(root.iterdir())) == 3


def test_a_run_that_is_restored_twice_at_once_comes_back_once(home: Path) -> None:
    root = home / "base"
    make(root, "one")
    move_to_trash(root, "one")
    barrier, done, refused = threading.Barrier(4), [], []

    def bring(number: int) -> None:
        barrier.wait()
        try:
            restore(root, "one", new=f"new{number}")
            done.append(number)
        except (RunNotFoundError, RunLockedError, StorageError) as error:
            refused.append(error)

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert len(refused) == 3
    assert [path.name for path in root.iterdir()] == [f"new{done[0]}"]


def test_the_trash_is_emptied_whole_and_follows_no_link(home: Path, tmp_path: Path) -> None:
    root, outside = home / "base", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    for name in ("one", "two"):
        (make(root, name) / "link").symlink_to(outside)
        move_to_trash(root, name)
    make(home / ".trash", ".ending-abc")  # an interrupted deletion
    assert len(list_trash(root)) == 2
    delete_for_good([one for one in list_trash(root) if one.name == "one"])
    assert [one.name for one in list_trash(root)] == ["two"]
    delete_for_good(list_trash(root))
    remove_leftovers(root)
    assert list((home / ".trash").iterdir()) == []
    assert (outside / "file").exists()


def test_a_deletion_that_fails_half_way_leaves_nothing_to_restore(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home / "base"
    make(root, "one")
    move_to_trash(root, "one")

    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", fail)
        with pytest.raises(StorageError, match="Permission denied"):
            delete_for_good(list_trash(root))
    assert list_trash(root) == []
    remove_leftovers(root)
    assert list((home / ".trash").iterdir()) == []


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


@pytest.mark.parametrize("inside", [False, True])
def test_a_trash_that_is_a_link_is_refused_and_nothing_outside_is_touched(
    home: Path, tmp_path: Path, inside: bool
) -> None:
    root, outside = home / "base", tmp_path / "outside"
    make(root, "one")
    make(outside, "precious")
    make(outside / "20261124-153012-1", "old")
    make(outside, ".ending-abc")
    link = (root if inside else home) / ".trash"
    link.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    asked = [lambda: list_trash(root), lambda: remove_leftovers(root), lambda: restore(root, "precious")]
    asked += [] if inside else [lambda: move_to_trash(root, "one")]
    deleted = Deleted("precious", "precious", 0.0, link / "precious")
    for ask in (*asked, lambda: delete_for_good([deleted])):
        with pytest.raises(StorageError, match="is a link, which is not followed"):
            ask()
    assert sorted(outside.rglob("*")) == before
    assert (root / "one" / files.RUN).is_file()


def test_links_in_the_trash_and_folders_that_are_no_runs_are_no_deleted_runs(home: Path, tmp_path: Path) -> None:
    root, trash, outside = home / "base", home / ".trash", tmp_path / "outside"
    root.mkdir(parents=True)
    make(outside, "precious")
    (trash / "20261124-153012-1").mkdir(parents=True)
    (trash / "20261124-153012-1" / "new").symlink_to(outside / "precious")
    (trash / "20261124-153012-2").symlink_to(outside)
    (trash / "old").symlink_to(outside / "precious")
    (trash / "photos").mkdir()
    (trash / "photos" / "file").touch()
    (trash / "linked").mkdir()
    (trash / "linked" / files.RUN).symlink_to(outside / "precious" / files.RUN)
    (trash / ".ending-abc").symlink_to(outside)
    assert list_trash(root) == []
    delete_for_good(list_trash(root))
    remove_leftovers(root)
    assert (outside / "precious" / files.RUN).is_file()
    assert (trash / "photos" / "file").exists()


def test_a_trash_that_is_a_file_is_refused(home: Path) -> None:
    make(home / "base", "one")
    (home / ".trash").touch()
    with pytest.raises(StorageError, match="is not a folder"):
        move_to_trash(home / "base", "one")


def test_an_empty_new_name_is_not_taken_for_none(home: Path) -> None:
    root = home / "base"
    make(root, "one")
    move_to_trash(root, "one")
    with pytest.raises(NameInvalidError):
        restore(root, "one", new="")
    assert [one.name for one in list_trash(root)] == ["one"]
