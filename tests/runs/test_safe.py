from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from darkit.errors import StorageError
from darkit.runs import files
from darkit.runs.lock import RunLock, is_locked
from darkit.runs.log import CsvLog, last_values, read_log
from darkit.runs.safe import (
    DEEPEST,
    UnreadableError,
    make_folder,
    open_for_writing,
    read_bytes,
    read_object,
    read_text,
    refuse_links,
)


def put(kind: str, path: Path, outside: Path) -> None:
    """Put something other than a regular file at a path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path.symlink_to({"link": outside, "dangling link": outside / "new", "device": "/dev/null"}[kind])


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


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '"a"', "{" * 5000, "[" * 100_000, "\xff", f'{{"a": {"[" * DEEPEST}{"]" * DEEPEST}}}']
)
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


STRANGE = ["link", "dangling link", "device", "pipe", "socket"]


@pytest.mark.parametrize("kind", STRANGE)
def test_nothing_is_written_through_a_link_or_into_a_device(tmp_path: Path, kind: str) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    for name in (files.LOCK, files.LOG, files.TENSORBOARD):
        put(kind, folder / name, outside)
    for write in (
        lambda: open_for_writing(folder / files.LOG, os.O_RDWR | os.O_CREAT),
        lambda: RunLock(folder),
        lambda: CsvLog(folder / files.LOG).append([{"step": 1}]),
        lambda: make_folder(folder / files.TENSORBOARD),
    ):
        with pytest.raises(StorageError, match=str(folder)) as caught:
            write()
        assert len(str(caught.value).splitlines()) == 1
    assert not is_locked(folder)
    assert not list(outside.iterdir())
    for read in (read_log, last_values):
        with pytest.raises(StorageError, match="Cannot read the log"):
            read(folder / files.LOG)


def test_a_whole_file_takes_the_place_of_a_link_and_leaves_where_it_led(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "a.json").symlink_to(tmp_path / "outside")
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert files.read_json(tmp_path / "a.json") == {"a": 1}
    assert (tmp_path / "outside").read_text() == "kept"


def test_a_link_deep_in_a_folder_is_refused_before_anything_is_written_there(tmp_path: Path) -> None:
    (tmp_path / "tokenizer" / "more").mkdir(parents=True)
    refuse_links(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "more" / "vocab.json").symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match=r"vocab\.json is a link; darkit does not write through it\. Remove it\."):
        make_folder(tmp_path / "tokenizer")


def test_what_stands_above_a_run_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "base" / "run").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    folder = tmp_path / "home" / "base" / "run"
    RunLock(folder).release()
    CsvLog(folder / files.LOG).append([{"step": 1}])
    assert last_values(folder / files.LOG) == {"step": "1"}


@pytest.mark.parametrize("content", [b"a," * 600_000 + b"b\n1\n", b"a" * 2**21, b"a," * 20_000 + b"b\n"])
def test_a_header_without_end_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    for read in (read_log, last_values, CsvLog):
        with pytest.raises(StorageError, match=r"its first line has more than \d+ (bytes|columns)"):
            read(path)


def test_a_log_of_a_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step\n1\n")
    os.truncate(path, 2**40)
    for read in (read_log, last_values):
        with pytest.raises(StorageError, match="it has more than"):
            read(path)
