"""Import Dash without Flask and notebooks, which take a fifth of its time and which nothing here uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def without(name: str) -> Iterator[None]:
    """Refuse the import of a module, unless it is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # which is how Python refuses an import
    try:
        yield
    finally:
        del sys.modules[name]


def import_dash() -> None:
    """Import Dash; where IPython is installed, Dash is told that it is not."""
    with without("IPython"), suppress(ImportError):  # an error is reported where Dash is used
        import dash  # noqa: F401
