"""How darkit starts Python processes of its own: without importing what happens to lie in the working directory."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_PACKAGE_PARENT = Path(__file__).parents[2]


def python_module(module: str, *words: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a module as ``python -m`` does, but not from the working directory.

    ``-P`` keeps an ``http.py`` there from being imported in place of the library's. What a process needs from the
    working directory, such as a person's model, it adds to the path itself once its own imports are done. ``flags`` are
    further options of the interpreter.
    """
    return [sys.executable, *flags, "-P", "-m", module, *words]


@contextmanager
def safe_path() -> Iterator[None]:
    """Let the Python processes that a library starts in a block import as with ``-P``."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for such a process, in which it finds this darkit also where it is not installed."""
    found = {**os.environ, **more}
    if str(_PACKAGE_PARENT) not in (*site.getsitepackages(), site.getusersitepackages()):
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [found.get("PYTHONPATH"), str(_PACKAGE_PARENT)]))
    return found
