"""Media of a W&B run: what its history says of them, and the files that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darkit.integrations.importers.imported import ImportedMedium
from darkit.integrations.importers.media import inside
from darkit.integrations.importers.reading import parse_json, read_document
from darkit.integrations.importers.rows import column_name
from darkit.runs.media import LARGEST
from darkit.runs.media_content import ending_of, histogram_json, table_json

_FILES = {  # W&B's type -> the kind of a run's media
    "image-file": "image",
    "video-file": "image",  # an animation; other videos have an ending that no image has
    "audio-file": "audio",
    "html-file": "text",
    "plotly-file": "figure",
    "table-file": "table",
}
KNOWN = {*_FILES, "images/separated", "images", "audio", "histogram"}
_MOST_BINS = 100_000


def media_of(name: str, step: int, time: float, value: Mapping[str, Any], folder: Path) -> Iterator[ImportedMedium]:
    """Read the media that one value of the history stands for.

    Args:
        name: The name it was logged under.
        step: Its step.
        time: When it was logged.
        value: What the history says, with ``_type`` one of `KNOWN`.
        folder: The folder that its paths start from.

    Raises:
        SourceError: A file is missing or cannot be read.
        ValueError: The value does not have the form of its type.
    """
    key, kind = column_name(name), value["_type"]
    if kind == "histogram":
        yield ImportedMedium("histogram", key, step, _histogram(value), "json", time)
    elif kind in _FILES:
        yield _file(_FILES[kind], key, step, time, value.get("path"), value.get("caption"), folder)
    elif kind == "audio":
        for index, one in enumerate(_list(value.get("audio"))):
            yield _file("audio", _numbered(key, index), step, time, one.get("path"), one.get("caption"), folder)
    else:
        captions = value.get("captions")
        for index, path in enumerate(_list(value.get("filenames"))):
            caption = captions[index] if isinstance(captions, list) and index < len(captions) else None
            yield _file("image", _numbered(key, index), step, time, path, caption, folder)


def _file(kind: str, key: str, step: int, time: float, path: Any, caption: Any, folder: Path) -> ImportedMedium:
    data = read_document(inside(folder, path), LARGEST)
    ending = ending_of(data)
    if kind == "table":
        table = parse_json(data)
        if not isinstance(table, dict):
            raise ValueError("it is not a table")
        rows = [_list(row) for row in _list(table.get("data"))]
        data, ending = table_json([str(column) for column in _list(table.get("columns"))], rows), "json"
    elif kind == "figure":
        if not isinstance(parse_json(data), dict):
            raise ValueError("it is not a figure")
        ending = "json"
    elif kind == "text":
        ending = "txt"
    return ImportedMedium(kind, key, step, data, ending, time, caption if isinstance(caption, str) else "")


def _histogram(value: Mapping[str, Any]) -> bytes:
    counts = _list(value.get("values"))
    packed = value.get("packedBins")
    if isinstance(packed, Mapping):
        edges = [packed["min"] + index * packed["size"] for index in range(len(counts) + 1)]
    else:
        edges = _list(value.get("bins"))
    if len(counts) > _MOST_BINS:
        raise ValueError(f"it has {len(counts):,} bins")
    return histogram_json(edges, counts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("it does not have the form of its type")
    return value


def _numbered(key: str, index: int) -> str:
    return f"{key[:190]}/{index}"
