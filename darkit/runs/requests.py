"""Requests that others leave for a run's trainer: so far, to stop."""

from __future__ import annotations

import time
from pathlib import Path

from darkit.runs import files

STOP = "stop.json"


def request_stop(folder: Path, by: str = "") -> None:
    """Asks the trainer of a run to save and end; it looks every two seconds.

    Args:
        folder: The run directory.
        by: Who asks, for people to read.

    Raises:
        StorageError: The file system refused.
    """
    files.write_json(folder / STOP, {"time": time.time(), "by": by})
