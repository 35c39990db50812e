"""The console of a run: bounded, with its beginning and its end, and untrusted when it is read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from darkit.errors import StorageError
from darkit.runs import console, files
from darkit.runs.console import ConsoleLog, follow_console, read_console


def test_text_is_appended(tmp_path: Path) -> None:
    assert read_console(tmp_path) == ""
    ConsoleLog(tmp_path).append("one\n")
    ConsoleLog(tmp_path).append("two 海 \ud800\n")
    assert read_console(tmp_path) == "one\ntwo 海 \\ud800\n"


def test_of_too_much_the_beginning_and_the_end_are_kept_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "HEAD", 100)
    monkeypatch.setattr(console, "TAIL", 200)
    monkeypatch.setattr(console, "_SLACK", 300)
    lines = [f"line {number:05}\n" for number in range(3000)]
    for first in range(0, 3000, 7):
        ConsoleLog(tmp_path).append("".join(lines[first : first + 7]))  # a new one goes on where the last one was
        assert (tmp_path / files.CONSOLE).stat().st_size < 750
    printed = read_console(tmp_path)
    (left,) = re.findall(r"^\.\.\. ([\d,]+) bytes left out \.\.\.$", printed, re.MULTILINE)
    head, tail = printed.split(f"... {left} bytes left out ...\n")
    assert head == "".join(lines[:9])
    assert tail == "".join(lines[-(len(tail) // 11) :])
    assert len(tail) >= 180
    assert int(left.replace(",", "")) + len(head) + len(tail) == 11 * 3000


def test_one_line_beyond_all_bounds_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEAD", 100)
    monkeypatch.setattr(console, "TAIL", 200)
    monkeypatch.setattr(console, "_SLACK", 300)
    ConsoleLog(tmp_path).append("x" * 10_000 + "\n")
    ConsoleLog(tmp_path).append("end\n")
    assert (tmp_path / files.CONSOLE).stat().st_size < 600
    assert read_console(tmp_path).endswith("end\n")


def test_the_end_alone_can_be_read(tmp_path: Path) -> None:
    ConsoleLog(tmp_path).append("first\nsecond\nthird\n")
    assert read_console(tmp_path, 10) == "third\n"


def test_a_console_that_is_no_file_is_neither_read_nor_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / files.CONSOLE).symlink_to(tmp_path / "secret")
    assert read_console(tmp_path) == ""
    assert "Cannot read the console" in caplog.text
    with pytest.raises(StorageError):
        ConsoleLog(tmp_path).append("more")
    (tmp_path / files.CONSOLE).unlink()
    os.mkfifo(tmp_path / files.CONSOLE)
    assert read_console(tmp_path) == ""
    with pytest.raises((StorageError, OSError)):
        ConsoleLog(tmp_path).append("more")


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    (tmp_path / files.CONSOLE).write_bytes(b"\xff\xfe\x00 text")
    assert read_console(tmp_path) == "��\x00 text"


def test_whole_lines_are_followed_and_a_file_that_was_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / files.CONSOLE
    assert follow_console(tmp_path, 0, 100) == ("", 0, True)
    path.write_text("one\ntwo\nhal")
    assert follow_console(tmp_path, 0, 100) == ("one\ntwo\n", 8, True)
    path.write_text("one\ntwo\nhalf\n")
    assert follow_console(tmp_path, 8, 100) == ("half\n", 13, True)
    assert follow_console(tmp_path, 13, 100) == ("", 13, True)
    assert follow_console(tmp_path, 0, 9) == ("half\n", 13, False)  # more than so many bytes: whole lines of the end
    path.write_text("new\n")
    assert follow_console(tmp_path, 13, 100) == ("new\n", 4, False)
