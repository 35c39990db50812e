from __future__ import annotations

import os
from pathlib import Path

import pytest

from darkit.runs.safe import UnreadableError, read_bytes, read_object, read_text


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1]}')
    assert read_object(path) == {"a": [1]}
    assert read_text(path, 5) == '{"a":'


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device", "too long"])
def test_anything_else_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.json"
    if kind == "link":
        (tmp_path / "b").write_text("{}")
        path.symlink_to(tmp_path / "b")
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.write_text(" " * 20)
    with pytest.raises(UnreadableError, match=path.name):
        read_bytes(path, 10)
    assert read_text(path) == ("" if kind != "too long" else " " * 20)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"a"', "{" * 5000, "[" * 100_000, "\xff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UnreadableError):
        read_object(path)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "a" / "b")
