"""Standard output that its reader closes, as ``head`` does: no error, and no reason to end what is under way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def say(text: str) -> None:
    """Prints a line at once. When nobody reads standard output any more, this line and all later ones are dropped."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_output()


@contextmanager
def until_nobody_reads() -> Iterator[None]:
    """Ends a block that prints when nobody reads standard output any more, without an error."""
    try:
        try:
            yield
        finally:
            flush_output()
    except BrokenPipeError:
        drop_output()


def flush_output() -> None:
    """Writes what was printed, as far as anybody reads it: at its exit the interpreter would report a closed pipe."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except ValueError:  # somebody closed it
        pass


def drop_output() -> None:
    """Sends what is printed from now on nowhere."""
    with suppress(OSError, ValueError, AttributeError):  # it is not a file of the system's
        output, nowhere = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)
