"""What a terminal shows in the end: bars as their last state, and no control sequences."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

from darkit.engine.log.folding import Folding


def folded(*texts: str) -> str:
    folding = Folding()
    found = ""
    for text in texts:
        folding.feed(text)
        found += folding.take()
    return found + folding.take(everything=True)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\ntwo\n", "one\ntwo\n"),
        ("no end", "no end\n"),
        ("", ""),
        ("\n\na\n\n", "\n\na\n\n"),
        ("dos\r\nlines\r\n", "dos\nlines\n"),
        ("10 %\r20 %\r100 %\n", "100 %\n"),
        ("longer\rshort\n", "shortr\n"),
        ("longer\r\x1b[Kshort\n", "short\n"),
        ("longer\r\x1b[2Kshort\n", "short\n"),
        ("longer\x1b[1K\n", "\n"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07and \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "red and link\n"),
        ("a\x08b\x00\x07\x1b(B\x1bc\n", "b\n"),
        ("tab\there\n", "tab\there\n"),
        ("one\ntwo\x1b[1A\rONE\x1b[1B\rTWO\n", "ONE\nTWO\n"),
        ("a\x1b[5Cb\x1b[2Dc\x1b[1Gd\n", "d    cb\n"),
        ("one\ntwo\x1b[A\x1b[J", "one\n"),
        ("\x1b[99999999999999999999A\x1b[99999Cx\n", " " * 16383 + "x\n"),
        ("\x1b[?25l\x1b[38;5;9mx\x1b[?25h", "x\n"),
        ("\x1b", ""),
        ("\x1b[", ""),
    ],
)
def test_text_is_folded_as_a_terminal_would(text: str, lines: str) -> None:
    assert folded(text) == lines


def test_what_is_complete_is_given_out_at_once() -> None:
    folding = Folding()
    folding.feed("one\ntwo\nthr")
    assert folding.take() == "one\ntwo\n"
    folding.feed("ee\n")
    assert folding.take() == "three\n"
    assert folding.take(everything=True) == ""


def test_bars_of_tqdm_become_their_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    for _ in tqdm(range(2), desc="outer", file=stream, ncols=60, mininterval=0):
        for _ in tqdm(range(50), desc="inner", file=stream, ncols=60, mininterval=0, leave=False, position=1):
            pass
    tqdm.write("between", file=stream)
    found = folded(*stream.getvalue().split("|"), "after\n").splitlines()
    assert len(found) <= 6
    found = folded(stream.getvalue(), "after\n").splitlines()
    assert found[0].startswith("outer: 100%")
    assert found[-1] == "after"
    assert sum("inner" in line for line in found) <= 1


def test_a_bar_of_rich_becomes_its_last_state() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with Progress(console=console, auto_refresh=False) as progress:
        one, two = progress.add_task("one", total=30), progress.add_task("two", total=30)
        for _ in range(30):
            progress.advance(one)
            progress.advance(two)
            progress.refresh()
        console.print("between")
    found = folded(stream.getvalue()).splitlines()
    assert found[0] == "between"
    assert [line.split()[0] for line in found[1:]] == ["one", "two"]
    assert all("100%" in line for line in found[1:])


def test_lines_are_bounded_and_bars_of_many_lines_too() -> None:
    assert folded("x" * 40_000).splitlines() == ["x" * 2**14, "x" * 2**14, "x" * (40_000 - 2**15)]
    folding = Folding()
    given = ""
    for number in range(5000):
        folding.feed(f"{number}\n\x1b[A\x1b[B")
        given += folding.take()
        assert len(folding._lines) <= 62
    assert (given + folding.take(everything=True)).splitlines() == [str(number) for number in range(5000)]


@given(st.lists(st.text(alphabet="ab\n\r\x08\x1b[]0;9ABCDGJKm\x07"), max_size=20))
def test_any_text_is_folded(texts: list[str]) -> None:
    found = folded(*texts)
    assert not set(found) & {"\x1b", "\r", "\x08", "\x07"}
    assert found in ("",) or found.endswith("\n")
