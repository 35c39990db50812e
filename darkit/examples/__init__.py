"""The examples as modules, such as ``darkit.examples.mymodel``, which a config can name.

A wheel carries them in this folder; in a checkout they are in the folder ``examples`` beside the package.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
__path__ = [str(_HERE if (_HERE / "mymodel.py").is_file() else _HERE.parents[1] / "examples")]
