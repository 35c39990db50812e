"""How the command line speaks of what went wrong: one sentence, never a traceback for what a user can mend."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import TextIO

from darkit.cli.terminal import InertConsole, make_logging_inert

USAGE_ERROR = 2  # the exit code of what a user can mend
INTERRUPTED = 130  # what shells give to a process that Ctrl-C ended
TERMINATED = 143  # and to one that SIGTERM ended


def print_error(error: BaseException) -> None:
    """Prints an error's sentence to standard error, with the place in the user's own code if it came from there."""
    place = _place(error)
    _print(" ".join(f"Error: {error}".split()) + (f" ({place})" if place else ""), "bold red")
    for note in getattr(error, "__notes__", ()):
        _print(note, "red")


def show_warnings() -> None:
    """Lets warnings be a sentence that stands out, without the place in the code, and log records inert text."""
    make_logging_inert()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        _print(f"Warning: {message}", "bold yellow")

    warnings.showwarning = show


class _Errors(InertConsole):
    """Standard error. Rich would end the process when nobody reads it."""

    def on_broken_pipe(self) -> None:
        """Drops the sentence."""


def _print(text: str, style: str) -> None:
    _Errors(file=sys.stderr, emoji=False).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _place(error: BaseException) -> str:
    """Returns the innermost line of code below the working directory that raised the error, or nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    folder, package = Path.cwd(), Path(__file__).resolve().parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).absolute()
        own = path.is_relative_to(folder) and not path.resolve().is_relative_to(package)
        if own and path.is_file() and "site-packages" not in path.parts:
            return f"{path.relative_to(folder)}, line {frame.lineno}"
    return ""
