"""Imports of a command: without the garbage collector, which would search the new modules again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_state = {"own": False}


def own_process() -> None:
    """Say that this process was started for one command."""
    _state["own"] = True


@contextmanager
def loading() -> Iterator[None]:
    """Import without garbage collections, and leave out of all later ones what was imported.

    Modules live as long as their process. The collector looks through all of their objects, hundreds of thousands with
    torch and Lightning, several times while they are imported, during the training and once more at the end: a quarter
    of the time from the start of a short training to its end.

    Does nothing in a process that someone else has started: there may be garbage, which would never be collected.
    """
    if not _state["own"] or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
