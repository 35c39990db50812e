"""The content of media files: which formats a run keeps, and how histograms and tables are written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from darkit.runs.inert import valid_json

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
)
_RIFF = {b"WAVE": "wav", b"WEBP": "webp"}


def ending_of(data: bytes) -> str:
    """Return the ending for the format that the first bytes show; empty if a run cannot keep it."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], "")
    return next((ending for magic, ending in _MAGIC if data.startswith(magic)), "")


def histogram_json(edges: Sequence[float], counts: Sequence[float]) -> bytes:
    """Return a histogram as a run keeps it.

    Args:
        edges: The edges of the bins, one more than there are bins.
        counts: How many values are in each bin.

    Raises:
        ValueError: The lengths do not fit, or an edge is not finite.
    """
    if len(edges) != len(counts) + 1 or not len(counts) or not all(map(math.isfinite, [*edges, *counts])):
        raise ValueError
    return json.dumps(
        {"edges": [float(edge) for edge in edges], "counts": [_count(count) for count in counts]}
    ).encode()


def table_json(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return a table as a run keeps it."""
    return valid_json(json.dumps({"columns": list(columns), "rows": [list(row) for row in rows]})).encode()


def _count(count: float) -> float:
    return int(count) if float(count).is_integer() else float(count)
