"""The media of runs as the pages ask for them: which there are, and the content of one."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.reading.facts import Facts, readable, stamp
from darkit.errors import MediaError
from darkit.runs import files
from darkit.runs.media import INDEX, Medium, read_media, read_medium

MOST_KEYS = 500  # of all runs of a page
MOST_STEPS = 500  # of a key of a run: of more some are shown, with the first and the last
MOST_HISTOGRAMS = 120  # of a key of a run in one figure
LARGEST_SHOWN = 16 * 2**20  # bytes of one medium
_MOST_KEPT = 64  # indexes in memory
_MOST_BINS = 10_000
_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "wav": "audio/wav",
    "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac", "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}  # fmt: skip

_lock = threading.Lock()
_kept: OrderedDict[Path, tuple[Any, list[Medium]]] = OrderedDict()


def has_media(folder: Path) -> bool:
    """Return whether a run logged any medium."""
    return stamp(str(folder / files.MEDIA / INDEX)) is not None


def media_of(folder: Path) -> list[Medium]:
    """Return the media of a run in the order of their logging; an index that did not change is not read again."""
    now = stamp(str(folder / files.MEDIA / INDEX))
    with _lock:
        known = _kept.get(folder)
        if known is not None and known[0] == now:
            _kept.move_to_end(folder)
            return known[1]
    found = read_media(folder) if now is not None else []
    with _lock:
        _kept[folder] = (now, found)
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return found


def list_media(runs: Sequence[Facts]) -> dict[str, Any]:
    """Return what media runs have.

    Returns:
        ``keys``: for each key and kind its ``runs``, each with ``[step, file, caption]`` by step; of several media of
        one step the last. ``left_out``: how many keys are not listed.
    """
    found: dict[tuple[str, str], dict[str, dict[int, Medium]]] = {}
    for facts in runs:
        for medium in media_of(facts.folder):
            found.setdefault((medium.key, medium.kind), {}).setdefault(facts.name, {})[medium.step] = medium
    keys = [
        {
            "key": readable(key),
            "kind": kind,
            "runs": {
                name: [[one.step, one.file, readable(one.caption)] for one in _some(steps)]
                for name, steps in by_run.items()
            },
        }
        for (key, kind), by_run in sorted(found.items())
    ]
    return {"keys": keys[:MOST_KEYS], "left_out": max(0, len(keys) - MOST_KEYS)}


def medium_content(folder: Path, file: str) -> tuple[bytes, str]:
    """Return the content of a medium of a run, and its content type.

    Raises:
        MediaError: The run has no such medium, it is too large to be shown, or its file is not what was logged.
    """
    medium = next((one for one in reversed(media_of(folder)) if one.file == file), None)
    if medium is None:
        raise MediaError(f"The run {folder.name!r} has no medium {file[:80]!r}.")
    if medium.size > LARGEST_SHOWN:
        raise MediaError(
            f"{medium.key!r} of step {medium.step} has {medium.size:,} bytes; {LARGEST_SHOWN:,} are shown at most. "
            f"Open {files.MEDIA}/{medium.file} in the run directory."
        )
    return read_medium(folder, medium), _TYPES[medium.file.rpartition(".")[2]]


def histograms_of(folder: Path, key: str) -> list[tuple[int, Numbers, Numbers]]:
    """Return the sound histograms of a key by step: the step, the edges (bins + 1,) and the counts (bins,)."""
    steps = {one.step: one for one in media_of(folder) if one.kind == "histogram" and one.key == key}
    found = []
    for medium in _some(steps, MOST_HISTOGRAMS):
        try:
            value = json.loads(medium_content(folder, medium.file)[0])
        except (MediaError, ValueError, RecursionError):
            continue
        histogram = _histogram(value)
        if histogram is not None:
            found.append((medium.step, *histogram))
    return found


def _some(steps: Mapping[int, Medium], most: int = MOST_STEPS) -> list[Medium]:
    ordered = [steps[step] for step in sorted(steps)]
    if len(ordered) <= most:
        return ordered
    return [ordered[place] for place in np.linspace(0, len(ordered) - 1, most).astype(int)]


def _histogram(value: Any) -> tuple[Numbers, Numbers] | None:
    """Return the edges and counts of a histogram, or None for what is none."""
    edges, counts = (value.get("edges"), value.get("counts")) if isinstance(value, dict) else (None, None)
    if not isinstance(edges, list) or not isinstance(counts, list):
        return None
    if len(edges) != len(counts) + 1 or not 0 < len(counts) <= _MOST_BINS:
        return None
    if not all(type(one) in (int, float) and abs(one) < 1e300 for one in (*edges, *counts)):
        return None
    bounds, numbers = np.array(edges, dtype=float), np.array(counts, dtype=float)
    sound = (np.diff(bounds) >= 0).all() and (numbers >= 0).all() and numbers.sum() > 0
    return (bounds, numbers) if sound else None
