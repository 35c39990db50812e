"""Printed text as lines: what a terminal shows in the end, without what it showed on the way."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"\r\n|[\n\r\x08]"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences, such as colours and movements
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links and other strings for the terminal
    r"|\x1b[ -/]*[0-~]?"
    r"|[^\n\r\x08\x1b]+"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST = 2**14  # characters of a line, which is then broken
_WINDOW = 60  # lines that a cursor can go back to


class Folding:
    """Follow the cursor of a terminal, so that a progress bar becomes its last state.

    Lines are given out once the cursor has left them. Where it comes back to earlier lines, as bars in several lines
    do, the last 60 stay until the end.
    """

    def __init__(self) -> None:
        self._lines = [""]
        self._row = self._column = 0
        self._returns = False

    def feed(self, text: str) -> None:
        """Print text."""
        for token in _TOKEN.findall(text):
            first = token[0]
            if token.endswith("\n"):
                self._break()
            elif first == "\r":
                self._column = 0
            elif first == "\x08":
                self._column = max(0, self._column - 1)
            elif token.startswith("\x1b["):
                self._control(token)
            elif first != "\x1b":
                self._write(_CONTROLS.sub("", token))

    def take(self, *, everything: bool = False) -> str:
        """Return the lines that will not change any more, or all of them, and forget them."""
        if everything:
            lines, self._lines = self._lines, [""]
            self._row = self._column = 0
            return "".join(f"{line.rstrip()}\n" for line in lines).rstrip("\n") + "\n" if any(lines) else ""
        count = max(0, min(self._row, len(self._lines) - _WINDOW) if self._returns else self._row)
        lines, self._lines = self._lines[:count], self._lines[count:]
        self._row -= count
        return "".join(f"{line.rstrip()}\n" for line in lines)

    def _break(self) -> None:
        self._row += 1
        self._column = 0
        if self._row == len(self._lines):
            self._lines.append("")

    def _write(self, text: str) -> None:
        while text:
            room = _LONGEST - self._column
            part, text = text[:room], text[room:]
            line = self._lines[self._row]
            if self._column == len(line):
                line += part
            else:
                line = line[: self._column].ljust(self._column) + part + line[self._column + len(part) :]
            self._lines[self._row] = line
            self._column += len(part)
            if text:
                self._break()

    def _control(self, token: str) -> None:
        last, number = token[-1], token[2:-1]
        count = min(int(number), _LONGEST - 1) if number.isascii() and number.isdigit() else 0
        line = self._lines[self._row]
        if last == "A":
            self._returns = True
            self._row = max(0, self._row - max(1, count))
        elif last == "B":
            self._row = min(len(self._lines) - 1, self._row + max(1, count))
        elif last == "C":
            self._column = min(_LONGEST - 1, self._column + max(1, count))
        elif last == "D":
            self._column = max(0, self._column - max(1, count))
        elif last == "G":
            self._column = max(1, count) - 1
        elif last == "K":
            self._lines[self._row] = {0: line[: self._column], 1: " " * self._column + line[self._column :]}.get(
                count, ""
            )
        elif last == "J" and not count:
            self._lines[self._row :] = [line[: self._column]]
