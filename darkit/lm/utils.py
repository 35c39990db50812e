"""Where DarwinKit keeps its language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from darkit.runs.home import home


def lm_root() -> Path:
    """Return the folder of the runs of `darkit.lm`."""
    return home() / "models" / "lm"


_PATHS: dict[str, Callable[[], Path]] = {
    "MODEL_PATH": lm_root,
    "DATASET_PATH": lambda: home() / "datasets" / "lm",
}  # at the time of the import


def __getattr__(name: str) -> Any:
    if name in _PATHS:
        return _PATHS[name]()
    raise AttributeError(f"module 'darkit.lm.utils' has no attribute {name!r}")
