"""Where in somebody's code a training failed, from the text of its traceback."""

from __future__ import annotations

import re

_MOST_LINES = 30
_NOT_THEIRS = re.compile(  # files of packages, of Python, of darkit, and code without a file
    r'File "(?:<|[^"]*[\\/](?:(?:site|dist)-packages|lib[\\/]python3\.\d+|'
    r"darkit[\\/](?:engine|core|cli|data|prediction))[\\/])",
    re.IGNORECASE,
)
_OURS = re.compile(r'File "[^"]*[\\/]darkit[\\/]')
_BETWEEN = re.compile(r"\n\n(?:The above exception was|During handling of the above exception)[^\n]*\n\n")


def place_of_failure(traceback: str) -> str:
    """Return the frame in which somebody's own code failed, and the error; of chained errors that of the first one.

    Where no frame is theirs, it is the last one. Empty without frames, and where darkit itself raised the error: then
    its sentence says all.
    """
    blocks = [(block.rstrip().splitlines(), _frames(block)) for block in _BETWEEN.split(traceback)]
    for lines, starts in blocks:
        theirs = [place for place, start in enumerate(starts) if not _NOT_THEIRS.search(lines[start])]
        if theirs:
            error = _end_of_frames(lines, starts[-1])
            ends = [*starts[1:], error]
            shown = [*lines[starts[theirs[-1]] : ends[theirs[-1]]], *lines[error:]]
            return "\n".join(shown[:_MOST_LINES])
    lines, starts = blocks[-1]
    if not starts or _OURS.search(lines[starts[-1]]):
        return ""
    return "\n".join(lines[starts[-1] :][:_MOST_LINES])


def _frames(block: str) -> list[int]:
    """Return the numbers of the lines that begin a frame."""
    return [place for place, line in enumerate(block.rstrip().splitlines()) if line.lstrip().startswith('File "')]


def _end_of_frames(lines: list[str], last: int) -> int:
    """Return the number of the line with which the error's own text begins, after that of the last frame."""
    return next((place for place in range(last, len(lines)) if not lines[place].startswith("  ")), len(lines))
