"""What a person asks of a run that trains elsewhere: ``stop.json``, written by readers and honoured by the trainer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from darkit.runs import files


def request_stop(folder: Path, by: str) -> None:
    """Ask the run to save and to end after the step that it is at.

    Args:
        folder: The run directory.
        by: Who asks, for the status's reason, such as ``darkit stop``.

    Raises:
        StorageError: The file system refused.
    """
    files.write_json(folder / files.STOP, {"time": time.time(), "by": by})


def read_stop(folder: Path) -> dict[str, Any] | None:
    """Return the request with its ``time`` and ``by``, or None without a request."""
    path = folder / files.STOP
    return files.read_json(path) if path.exists() else None


def forget_stop(folder: Path) -> None:
    """Remove a request that was honoured, or that is older than the training.

    Raises:
        StorageError: The file system refused.
    """
    files.remove(folder / files.STOP)
