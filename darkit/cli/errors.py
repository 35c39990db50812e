"""How the command line speaks of what went wrong: one sentence, never a traceback for what a user can mend."""

from __future__ import annotations

import sys
import warnings
from typing import TextIO

from rich.console import Console


def print_error(error: BaseException) -> None:
    """Prints an error's sentence to standard error."""
    _console().print(f"Error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)


def show_warnings() -> None:
    """Lets warnings be a sentence that stands out, without the place in the code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        _console().print(f"Warning: {message}", style="bold yellow", markup=False, highlight=False, soft_wrap=True)

    warnings.showwarning = show


def _console() -> Console:
    return Console(file=sys.stderr)
