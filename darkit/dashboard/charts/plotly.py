"""The plotly script that the pages draw with: its "basic" bundle, which the package carries.

The charts are lines and marks, which is what the basic bundle can draw. It is a quarter of the whole one, and a browser
takes it in five times as fast; the ``plotly`` package has only the whole one. It comes unchanged from npm's
``plotly.js-basic-dist-min`` (MIT licence, beside it).
"""

from __future__ import annotations

from pathlib import Path

VERSION = "4.1.1"
SCRIPT = Path(__file__).parents[1] / "vendor" / "plotly-basic.min.js"
ADDRESS = f"/plotly-basic-{VERSION}.min.js"
