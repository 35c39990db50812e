"""The plotly script of the pages: its "basic" bundle, which is part of this package.

The basic bundle draws lines and markers, which is all that the charts need. It is a quarter of the size of the whole
one and loads five times as fast; the ``plotly`` package has only the whole one. It is the unchanged file of npm's
``plotly.js-basic-dist-min`` (MIT licence, beside it). The whole one is loaded when a logged figure needs it.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

VERSION = "4.1.1"
SCRIPT = Path(__file__).parents[1] / "vendor" / "plotly-basic.min.js"
ADDRESS = f"/plotly-basic-{VERSION}.min.js"

_PACKAGE = find_spec("plotly")
WHOLE_SCRIPT = Path((_PACKAGE and _PACKAGE.origin) or "plotly").parent / "package_data" / "plotly.min.js"
WHOLE_ADDRESS = f"/plotly-whole-{version('plotly')}.min.js"
