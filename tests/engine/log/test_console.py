"""What a process prints is kept, and nothing about its printing changes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pty
import re
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import darkit
from darkit.engine.log import console as module
from darkit.engine.log.console import Console
from darkit.errors import RunReplacedError
from darkit.runs import files
from darkit.runs.console import read_console
from tests.children import Zygote
from tests.engine.parts import made, train, xy


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = _writers()  # other packages (wandb) leave theirs
    yield
    assert module._taps == []
    assert _writers() == before


def _writers() -> list[Any]:
    return [vars(stream).get("write") for stream in (sys.stdout, sys.stderr)]


def test_both_streams_and_their_loggers_are_heard_until_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler(sys.stderr)  # made before the run
    out, err = sys.stdout, sys.stderr
    print("before")
    console = Console(tmp_path)
    assert (sys.stdout, sys.stderr) == (out, err)
    print("on", "standard output")
    print("on standard error", file=sys.stderr)
    handler.emit(logging.makeLogRecord({"msg": "from a logger"}))
    sys.stdout.writelines(["several ", "parts\n"])
    console.write()
    assert read_console(tmp_path) == "on standard output\non standard error\nfrom a logger\nseveral parts\n"
    print("the end", end="")
    console.close()
    print("after")
    assert read_console(tmp_path).endswith("several parts\nthe end\n")
    shown = capsys.readouterr()
    assert shown.out == "before\non standard output\nseveral parts\nthe endafter\n"
    assert shown.err == "on standard error\nfrom a logger\n"


def test_two_runs_hear_the_same_and_end_in_any_order(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    first, second = Console(folders[0]), Console(folders[1])
    print("both")
    first.close()
    third = Console(folders[2])
    print("later")
    third.close()
    second.close()
    assert [read_console(folder) for folder in folders] == ["both\n", "both\nlater\n", "later\n"]


def test_another_wrapper_of_the_stream_is_left_as_it_was(tmp_path: Path) -> None:
    stream, heard = io.StringIO(), []
    before = stream.write

    def theirs(text: str) -> int:
        heard.append(text)
        return before(text)

    with contextlib.redirect_stdout(stream):
        stream.write = theirs  # type: ignore[method-assign]
        console = Console(tmp_path)
        print("first")
        console.close()
        assert stream.write is theirs
        console = Console(tmp_path)
        ours = stream.write
        stream.write = lambda text: ours(text.upper())  # type: ignore[method-assign]
        print("second")
        console.close()
        print("third")  # through both, although nobody listens any more
    assert stream.getvalue() == "first\nSECOND\nTHIRD\n"
    assert "".join(heard) == stream.getvalue()
    assert read_console(tmp_path) == "first\nSECOND\n"
    module._taps.clear()


def test_streams_that_cannot_be_heard_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slots:
        __slots__ = ()

        def write(self, text: str) -> int:
            return len(text)

    monkeypatch.setattr(sys, "stdout", Slots())
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    console = Console(tmp_path)
    print("unheard")
    console.close()
    assert not (tmp_path / files.CONSOLE).exists()


def test_a_refusing_disk_is_told_once_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / files.CONSOLE).symlink_to("elsewhere")
    console = Console(tmp_path)
    print("kept")
    console.write()
    console.write()
    (tmp_path / files.CONSOLE).unlink()
    console.close()
    assert caplog.text.count("The console of the run cannot be recorded") == 1
    assert read_console(tmp_path).startswith("kept\n")


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 100)
    console = Console(tmp_path)
    for _ in range(50):
        print("0123456789")
    console.close()
    kept = read_console(tmp_path)
    assert kept.startswith("0123456789\n" * 9)
    assert re.search(r"^\.\.\. 44\d characters left out \.\.\.$", kept, re.MULTILINE)
    assert len(kept) < 200


def test_nothing_is_written_into_a_folder_that_was_replaced(tmp_path: Path) -> None:
    def check() -> None:
        raise RunReplacedError(1, "gone")

    console = Console(tmp_path, check=check)
    print("x")
    console.close()
    assert not (tmp_path / files.CONSOLE).exists()


def test_many_threads_may_print(tmp_path: Path) -> None:
    console = Console(tmp_path)
    threads = [threading.Thread(target=lambda: [sys.stdout.write("line\n") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        console.write()
    console.close()
    assert read_console(tmp_path) == "line\n" * 2000


def test_a_training_keeps_its_console_unless_told_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    def loss(outputs: Any, target: Any) -> Any:
        print("in the loss")
        return (outputs - target).square().mean()

    run = train(made(), xy(), name="kept", loss=loss, max_step=2)
    assert read_console(run.path).count("in the loss") == 2
    assert "step 2/2" in read_console(run.path)  # the progress
    again = train(made(), xy(), name="kept", loss=loss, max_step=3, resume=True)
    printed = read_console(again.path)
    assert printed.count("in the loss") == 3
    assert "... resumed after step 2 ..." in printed
    assert not (train(made(), xy(), name="no", loss=loss, max_step=1, console=False).path / files.CONSOLE).exists()
    with darkit.start_run("loop") as one, darkit.start_run("silent", console=False) as other:
        print("in the loop")
        one.log({"loss": 1.0})
        other.log({"loss": 1.0})
    assert read_console(darkit.load("loop").path) == "in the loop\n"
    assert not (darkit.load("silent").path / files.CONSOLE).exists()


def test_a_forked_child_prints_and_is_not_recorded(zygote: Zygote, home: Path) -> None:
    code = """
        import darkit, os
        with darkit.start_run("mine") as run:
            print("parent before", flush=True)
            if not (child := os.fork()):
                print("child", flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print("parent after")
    """
    child = zygote.run(textwrap.dedent(code), home)
    assert child.wait() == 0
    assert child.output.splitlines() == ["parent before", "child", "parent after"]
    assert read_console(home / "base" / "mine") == "parent before\nparent after\n"


def test_a_process_still_has_its_terminal(python: str, home: Path) -> None:
    code = """
        import darkit, sys
        from tqdm import tqdm
        with darkit.start_run("mine") as run:
            print(sys.stdout.isatty(), sys.stderr.isatty(), sys.stdout.fileno())
            for step in tqdm(range(3), ncols=60, mininterval=0):
                run.log({"loss": 1.0})
            print("input", input())
    """
    parent, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen([python, "-c", textwrap.dedent(code)], stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.write(parent, b"typed\n")
    shown = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(parent, 65536):
            shown += chunk
    os.close(parent)
    assert process.wait() == 0
    assert b"True True 1\r\n" in shown
    assert shown.count(b"/3 [") > 2, shown  # the bar moves
    lines = read_console(home / "base" / "mine").splitlines()
    assert lines[0] == "True True 1"
    assert [line for line in lines if "it/s" in line or "3/3" in line].__len__() == 1
    assert lines[-1] == "input typed"


def test_the_traceback_of_a_program_without_a_block_is_kept(home: Path) -> None:
    code = "import darkit; run = darkit.start_run('mine'); run.log({'loss': 1.0}); raise RuntimeError('broken')"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert read_console(home / "base" / "mine").endswith("RuntimeError: broken\n")
