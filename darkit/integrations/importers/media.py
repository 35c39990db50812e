"""Media of other tools in the formats of `darkit.runs.media`."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from darkit.errors import SourceError
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
    if len(edges) != len(counts) + 1 or not counts or not all(map(math.isfinite, [*edges, *counts])):
        raise ValueError
    return json.dumps(
        {"edges": [float(edge) for edge in edges], "counts": [_count(count) for count in counts]}
    ).encode()


def table_json(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return a table as a run keeps it."""
    return valid_json(json.dumps({"columns": list(columns), "rows": [list(row) for row in rows]})).encode()


def inside(folder: Path, path: Any) -> Path:
    """Return a file below a folder. Raises `SourceError` for a path that leads out of it or through a link."""
    parts = PurePosixPath(path).parts if isinstance(path, str) and "\0" not in path else ()
    if not parts or ".." in parts or parts[0] == "/" or "\\" in path:
        raise SourceError(f"The path {str(path)[:100]!r} is not one below {folder}.")
    place = folder
    for part in parts[:-1]:
        place = place / part
        try:
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise SourceError(f"{place} is not a folder.")
        except OSError as error:
            raise SourceError(f"{place} does not exist.") from error
    return place / parts[-1]


def _count(count: float) -> float:
    return int(count) if float(count).is_integer() else float(count)
