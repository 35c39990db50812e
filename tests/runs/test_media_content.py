"""The formats of media files."""

from __future__ import annotations

import json
import math

import pytest

from darkit.runs.media_content import ending_of, histogram_json, table_json


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        *(
            (b"\x89PNG\r\n\x1a\n", "png"),
            (b"\xff\xd8\xff\xe0", "jpg"),
            (b"GIF89a", "gif"),
            (b"RIFF0000WEBPVP8 ", "webp"),
        ),
        *((b"RIFF0000WAVEfmt ", "wav"), (b"OggS", "ogg"), (b"fLaC", "flac"), (b"ID3", "mp3"), (b"\xff\xfb\x90", "mp3")),
        *((b"<svg/>", ""), (b"<html>", ""), (b"RIFF0000AVI ", ""), (b"", ""), (b"%PDF", "")),
    ],
)
def test_a_format_is_known_by_its_first_bytes(data: bytes, ending: str) -> None:
    assert ending_of(data) == ending


def test_a_histogram_and_a_table_are_valid_json() -> None:
    assert json.loads(histogram_json([0, 0.5, 1], [2, 3.0])) == {"edges": [0.0, 0.5, 1.0], "counts": [2, 3]}
    assert json.loads(table_json(["a"], [[math.nan], ["x"]])) == {"columns": ["a"], "rows": [[None], ["x"]]}


@pytest.mark.parametrize(("edges", "counts"), [([0, 1], [1, 2]), ([0], []), ([0, math.inf], [1]), ([0, 1], [math.nan])])
def test_a_histogram_that_does_not_fit_is_refused(edges: list[float], counts: list[float]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its caller says what is wrong
        histogram_json(edges, counts)
