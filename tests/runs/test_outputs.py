"""Outputs for other programs: complete or not at all, and nothing of the user's is replaced."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from darkit.errors import ConfigError, RunExistsError, StorageError
from darkit.runs.outputs import EXPORT, fresh_output


def write_folder(path: Path, text: str, *, replace: bool = False) -> None:
    with fresh_output(path, {"format": "x"}, replace=replace) as made:
        made.mkdir()
        (made / "part").mkdir()
        (made / "part" / "a.txt").write_text(text)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_folder_says_what_it_was_made_of_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "one")
    assert everything(tmp_path) == {"out", "out/part", "out/part/a.txt", f"out/{EXPORT}"}
    assert json.loads((tmp_path / "out" / EXPORT).read_text()) == {"format": "x"}


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "one")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="no"), fresh_output(tmp_path / "out", {}, replace=True) as made:
        made.mkdir()
        raise ValueError("no")
    assert everything(tmp_path) == before
    assert (tmp_path / "out" / "part" / "a.txt").read_text() == "one"


def test_an_exported_folder_is_replaced_whole_when_asked(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "one")
    (tmp_path / "out" / "left").touch()
    with pytest.raises(RunExistsError, match="already exists"):
        write_folder(tmp_path / "out", "two")
    write_folder(tmp_path / "out", "two", replace=True)
    assert everything(tmp_path) == {"out", "out/part", "out/part/a.txt", f"out/{EXPORT}"}
    assert (tmp_path / "out" / "part" / "a.txt").read_text() == "two"


def test_a_folder_of_the_user_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    write_folder(mine, "an empty one is", replace=True)
    (mine / EXPORT).unlink()
    (tmp_path / "link").symlink_to(mine)
    before = everything(tmp_path)
    for path in (mine, tmp_path / "link", tmp_path, mine / ".", mine / ".."):
        with pytest.raises(ConfigError, match="did not export"):
            write_folder(path, "two", replace=True)
    assert everything(tmp_path) == before


def test_a_file_does_not_replace_a_folder_nor_a_folder_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        write_folder(tmp_path / "file", "two", replace=True)
    write_folder(tmp_path / "out", "one")
    with pytest.raises(ConfigError, match="is a folder"), fresh_output(tmp_path / "out", {}, replace=True) as made:
        made.write_text("two")
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "out" / "part" / "a.txt").read_text() == "one"


def test_a_folder_that_cannot_get_its_name_gives_it_back_to_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "out", "one")
    before = everything(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="Cannot write"):
        write_folder(tmp_path / "out", "two", replace=True)
    monkeypatch.undo()
    assert everything(tmp_path) == before
    assert (tmp_path / "out" / "part" / "a.txt").read_text() == "one"
