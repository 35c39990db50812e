"""Import Dash without its support for notebooks, which takes a fifth of its time and which nothing here uses."""

from __future__ import annotations

import sys
from contextlib import suppress

_NOTEBOOKS = "IPython"


def import_dash() -> None:
    """Import Dash; where IPython is installed, Dash is told that it is not."""
    if _NOTEBOOKS in sys.modules or "dash" in sys.modules:
        return
    sys.modules[_NOTEBOOKS] = None  # type: ignore[assignment] # which is how an import is refused
    with suppress(ImportError):  # reported where Dash is used
        import dash  # noqa: F401
    del sys.modules[_NOTEBOOKS]
