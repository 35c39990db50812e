"""Errors on the command line: one sentence, and no traceback for what the user can fix."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import TextIO

from darkit.cli.terminal import InertConsole, make_logging_inert

UNEXPECTED = 1  # the exit code of an error that darkit did not expect
USAGE_ERROR = 2  # the exit code of an error that the user can fix
INTERRUPTED = 130  # as shells report a process that Ctrl-C ended


def print_error(error: BaseException) -> None:
    """Print an error's sentence to standard error, with the place in the user's own code if it came from there."""
    place = _place(error)
    _print(" ".join(f"Error: {error}".split()) + (f" ({place})" if place else ""), "bold red")
    for note in getattr(error, "__notes__", ()):
        _print(note, "red")


def show_warnings() -> None:
    """Print warnings as one highlighted sentence without a source line, and log records as inert text."""
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
    """Standard error; rich would end the process when it is closed."""

    def on_broken_pipe(self) -> None:
        """Drop the sentence."""


def _print(text: str, style: str) -> None:
    _Errors(file=sys.stderr, emoji=False).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _place(error: BaseException) -> str:
    """Return the innermost line of code below the working directory that raised the error, or nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    folder, package = Path.cwd(), Path(__file__).resolve().parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).absolute()
        own = path.is_relative_to(folder) and not path.resolve().is_relative_to(package)
        if own and path.is_file() and "site-packages" not in path.parts:
            return f"{path.relative_to(folder)}, line {frame.lineno}"
    return ""
