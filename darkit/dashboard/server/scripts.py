"""The scripts and the style of the pages, each at an address that names its content, so that a browser keeps it.

The files of ``assets`` are sent as one script and one style: a page of thirty files asks thirty times, at every visit.

AG Grid is the unchanged file ``ag-grid-community.min.noStyle.js`` of npm's ``ag-grid-community`` (MIT licence, beside
it). It makes cells of plain elements, where ``dash-ag-grid`` makes each with React.

The long scripts are each one function, which a browser's V8 would read twice: quickly while it is loaded, and again
when it is called, in the page's own thread. `eager` asks it to compile all functions at once, beside that thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

SCRIPTS = "/scripts/"
ASSETS = Path(__file__).parents[1] / "assets"
GRID_VERSION = "35.3.0"
GRID_SCRIPT = Path(__file__).parents[1] / "vendor" / "ag-grid-community.min.js"
GRID_ADDRESS = f"{SCRIPTS}ag-grid-{GRID_VERSION}.min.js"
KEPT = {"cache-control": "public, max-age=31536000, immutable"}  # of what has another address when it changes
_EAGER = b"//# allFunctionsCalledOnLoad\n"


@dataclass(frozen=True)
class Joined:
    """Files sent as one.

    Args:
        address: Where a page finds it.
        content: The files, in the order of their names.
        kind: Its media type.
    """

    address: str
    content: bytes
    kind: str


def eager(path: Path) -> Response:
    """Return a script that a page runs as soon as it is there, with the hint to compile all of it beforehand.

    The hint is a comment (https://v8.dev/blog/explicit-compile-hints); a browser that does not know it passes it over.
    """
    return Response(_EAGER + path.read_bytes(), media_type="text/javascript", headers=KEPT)


def own_script() -> Joined:
    """Join the pages' own scripts, of which each is a function that is called at once."""
    return _joined("js", "text/javascript")


def own_style() -> Joined:
    """Join the pages' own styles."""
    return _joined("css", "text/css")


def _joined(suffix: str, kind: str) -> Joined:
    content = b"\n".join(path.read_bytes() for path in sorted(ASSETS.glob(f"*.{suffix}")))
    return Joined(f"{SCRIPTS}darkit-{hashlib.sha256(content).hexdigest()[:16]}.{suffix}", content, kind)
