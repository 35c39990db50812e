"""Values that become files: what their files hold, and what is refused in one sentence."""

from __future__ import annotations

import io
import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import polars
import pytest
import torch

import darkit
from darkit.engine.log.media import Encoded, encode, is_media, split
from darkit.errors import MediaError
from darkit.runs.media import LARGEST

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def pixels(encoded: Encoded | None) -> numpy.ndarray[Any, Any]:
    assert encoded is not None
    assert encoded.ending == "png"
    return numpy.asarray(PIL.Image.open(io.BytesIO(encoded.data)))


IMAGES: list[tuple[Any, tuple[int, ...]]] = [
    (numpy.random.default_rng(0).random((5, 7)), (5, 7)),
    (numpy.random.default_rng(0).random((5, 7, 3)), (5, 7, 3)),
    (numpy.random.default_rng(0).integers(0, 256, (5, 7, 4), numpy.uint8), (5, 7, 4)),
    (numpy.random.default_rng(0).random((3, 5, 7)), (5, 7, 3)),
    (torch.rand(3, 5, 7), (5, 7, 3)),
    (torch.rand(5, 7, 3), (5, 7, 3)),
    (torch.rand(3, 5, 3), (5, 3, 3)),
    (numpy.random.default_rng(0).random((3, 5, 3)), (3, 5, 3)),
    (torch.rand(1, 5, 7, dtype=torch.bfloat16, requires_grad=True), (5, 7)),
    (torch.rand(7, 5).T, (5, 7)),
    (numpy.array([[True, False]]), (1, 2)),
    (torch.randint(0, 256, (2, 5, 7), dtype=torch.uint8), (5, 7, 2)),
]


@pytest.mark.parametrize(("image", "shape"), IMAGES)
def test_an_array_or_a_tensor_is_a_png_of_its_pixels(image: Any, shape: tuple[int, ...]) -> None:
    found = pixels(encode("k", image))
    assert found.shape == shape
    wanted = image.detach().float().numpy() if isinstance(image, torch.Tensor) else image.astype(float)
    if wanted.ndim == 3 and (isinstance(image, torch.Tensor) or wanted.shape[2] > 4) and wanted.shape[0] <= 4:
        wanted = wanted.transpose(1, 2, 0)
    scale = 1 if image.dtype in (numpy.uint8, torch.uint8) else 255
    assert numpy.array_equal(found, (wanted.reshape(shape) * scale).round())
    assert encode("k", image, arrays=False) is None
    assert pixels(darkit.Image(image).encode()).shape == shape


@pytest.mark.parametrize(
    "value",
    [numpy.ones(5), numpy.ones((2, 3, 5, 7)), torch.ones(5, 5, 7), numpy.eye(3, dtype=int), torch.ones(1, 1), 5, "x"],
)
def test_what_is_no_image_is_not_taken_for_one(value: Any) -> None:
    assert encode("k", value) is None


def test_an_image_of_pillow_and_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (6, 4, 3), numpy.uint8))
    assert is_media(image)
    assert numpy.array_equal(pixels(encode("k", image)), numpy.asarray(image))
    for format, ending in (("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("WEBP", "webp")):
        path = tmp_path / "image.data"  # the content counts, not the name
        image.save(path, format=format)
        for source in (path, str(path), path.read_bytes()):
            found = darkit.Image(source, "a caption").encode()
            assert (found.kind, found.ending, found.data, found.caption) == (
                "image",
                ending,
                path.read_bytes(),
                "a caption",
            )


def test_figures_are_kept_as_pictures_or_json() -> None:
    from matplotlib.figure import Figure
    from plotly import graph_objects

    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    found = encode("k", figure)
    assert found is not None
    assert (found.kind, found.ending) == ("figure", "png")
    assert pixels(found).shape[2] == 4
    assert darkit.Image(figure).encode().kind == "image"
    drawn = graph_objects.Figure(
        graph_objects.Scatter(y=[1, math.nan, 3]), layout={"title": "<script>alert(1)</script>"}
    )
    found = encode("k", drawn)
    assert found is not None
    assert (found.kind, found.ending) == ("figure", "json")
    content = json.loads(found.data)
    assert content["data"][0]["type"] == "scatter"
    assert content["layout"]["title"] == {"text": "<script>alert(1)</script>"}  # text, for who shows it


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("first", [True, False])
def test_a_sound_is_a_wav_file(channels: int, first: bool) -> None:
    samples = torch.linspace(-1, 1, 100).repeat(channels, 1)
    found = darkit.Audio(samples if first else samples.T.numpy(), rate=8000, caption="a").encode()
    with wave.open(io.BytesIO(found.data)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes(), file.getsampwidth()) == (
            channels,
            8000,
            100,
            2,
        )
        read = numpy.frombuffer(file.readframes(100), "<i2").reshape(100, channels)
    assert numpy.array_equal(read[:, 0], (samples[0].numpy() * 32767).round())
    again = darkit.Audio(found.data).encode()
    assert (again.kind, again.ending, again.data) == ("audio", "wav", found.data)
    whole = darkit.Audio(read[:, 0], rate=8000).encode()
    assert whole.data[44:] == read[:, 0].tobytes()


def test_a_text_is_kept_as_it_is() -> None:
    text = "# <b>title</b>\n\x1b[31m 海 \ud800"
    found = darkit.Text(text).encode()
    assert (found.kind, found.ending) == ("text", "txt")
    assert found.data.decode() == text.replace("\ud800", "\\ud800")


def test_a_histogram_counts_what_is_finite() -> None:
    found = darkit.Histogram(torch.tensor([0.0, 1.0, 1.0, math.nan, math.inf]), bins=2, caption="weights").encode()
    assert json.loads(found.data) == {"edges": [0.0, 0.5, 1.0], "counts": [1, 2]}
    assert found.caption == "weights 2 of 5 values are not finite."
    counted = darkit.Histogram([3, 0.5], edges=[0, 1, 2]).encode()
    assert json.loads(counted.data) == {"edges": [0.0, 1.0, 2.0], "counts": [3, 0.5]}
    assert len(json.loads(darkit.Histogram([7, 7, 7]).encode().data)["counts"]) == 64


@pytest.mark.parametrize(
    "table",
    [
        darkit.Table(["a", "b"], [[1, "x"], [None, 2.5]]),
        darkit.Table([{"a": 1, "b": "x"}, {"b": 2.5}]),
        darkit.Table(polars.DataFrame({"a": [1, None], "b": ["x", "2.5"]})),
    ],
)
def test_a_table_keeps_columns_and_rows(table: darkit.Table) -> None:
    content = json.loads(table.encode().data)
    assert content["columns"] == ["a", "b"]
    assert content["rows"] in ([[1, "x"], [None, 2.5]], [[1, "x"], [None, "2.5"]])


def test_cells_are_numbers_and_text() -> None:
    row = [numpy.float32(0.5), torch.tensor(3), math.nan, math.inf, Path("x"), [1, {"a": None}], True]
    content = darkit.Table(list("abcdefg"), [row]).encode().data
    assert content.endswith(b'"rows": [[0.5, 3, null, 1e999, "x", "[1, {\\"a\\": null}]", true]]}')
    json.loads(content)


class Broken:
    """A figure of plotly that cannot be drawn."""

    def to_json(self) -> str:
        raise RuntimeError("no data")


Broken.__module__, Broken.__name__ = "plotly.basedatatypes", "BaseFigure"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.full((3, 4, 4), 1.5), "its values must be from 0 to 1, but are from 1.5 to 1.5"),
        (lambda: numpy.full((4, 4), math.nan), "but are from nan to nan"),
        (lambda: darkit.Image(numpy.full((4, 4), -1)), "or fractions from 0 to 1, but are from -1"),
        (lambda: darkit.Image(numpy.ones((2, 3, 4, 4))), "with 1 to 4 channels, not (2, 3, 4, 4)"),
        (lambda: darkit.Image(numpy.ones((2, 2), complex)), "an image has numbers, not complex128"),
        (lambda: darkit.Image(numpy.zeros((1, 70_000), numpy.uint8)), "67,108,864 pixels, not 70000 x 1"),
        (lambda: darkit.Image(SVG), "its content must be png, jpg, gif, webp"),
        (lambda: darkit.Image(b"RIFF0000WAVE"), "its content must be png, jpg, gif, webp"),
        (lambda: darkit.Image("nowhere.png"), "the file 'nowhere.png' cannot be read"),
        (lambda: darkit.Image("/dev/zero"), "the file '/dev/zero' cannot be read"),
        (lambda: darkit.Image(5), "or the path or the bytes of a file, not int"),
        (lambda: darkit.Audio(numpy.ones(4)), "needs its rate="),
        (lambda: darkit.Audio(numpy.ones(4), rate=0), "a sound has 1 to 768,000 samples per second, not 0"),
        (lambda: darkit.Audio(numpy.ones(4), rate=8000.5), "not 8000.5"),
        (lambda: darkit.Audio(numpy.full(4, 1.1), rate=8000), "its values must be from -1 to 1, but are from 1.1"),
        (lambda: darkit.Audio(numpy.ones(4, numpy.int32), rate=8000), "or 16-bit integers, not int32"),
        (lambda: darkit.Audio(numpy.ones((30, 40)), rate=8000), "not (30, 40)"),
        (lambda: darkit.Audio([0.1], rate=8000), "or the path or the bytes of a file, not list"),
        (lambda: darkit.Audio(SVG), "its content must be wav, mp3, ogg, flac"),
        (lambda: darkit.Text(5), "a text is a str, not int"),
        (lambda: darkit.Histogram([]), "a histogram needs finite values, but has 0 others"),
        (lambda: darkit.Histogram([math.nan]), "but has 1 others"),
        (lambda: darkit.Histogram(["a"]), "a histogram has real numbers, not list"),
        (lambda: darkit.Histogram([1.0], bins=0), "1 to 10,000 bins, not 0"),
        (lambda: darkit.Histogram([1, 2], edges=[0, 1]), "one edge more than counts"),
        (lambda: darkit.Histogram([-1.7e308, 1.7e308]), "too far apart for bins"),
        (lambda: darkit.Table(["a"], [[1, 2]]), "must have its 1 cells, not [1, 2]"),
        (lambda: darkit.Table(["a"], ["x"]), "must have its 1 cells, not 'x'"),
        (lambda: darkit.Table("abc"), "a table has columns and rows, or is a data frame or a list of dicts, not 'abc'"),
        (lambda: darkit.Table("abc", []), "a list of columns and a list of rows"),
        (lambda: darkit.Table(["a"], [[1]] * 1_000_001), "1,000,000 cells, not 1,000,001 rows of 1"),
        (Broken, "BaseFigure gives no JSON (RuntimeError: no data)"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_name(make: Any, said: str) -> None:
    with pytest.raises(MediaError) as refused:
        encode("sample", make())
    assert str(refused.value).startswith("'sample' cannot be logged: ")
    assert said in str(refused.value)


@pytest.mark.parametrize("caption", [5, "x" * 10_001])
def test_a_caption_is_a_short_text(caption: Any) -> None:
    with pytest.raises(MediaError, match="A caption must be text of at most 10000 characters"):
        darkit.Text("x", caption=caption)


def test_numbers_are_split_from_media() -> None:
    image = darkit.Image(numpy.zeros((2, 2)))
    rest, media = split(
        {"loss": 1.0, "n": 3, "t": torch.ones(()), "s": "x", "image": image, "array": numpy.zeros((2, 2))}
    )
    assert list(rest) == ["loss", "n", "t", "s", "array"]
    assert list(media) == ["image"]
    assert list(split({"array": numpy.zeros((2, 2))}, arrays=True)[1]) == ["array"]


def test_nothing_larger_than_a_medium_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(MediaError, match="cannot be read"):
        encode("k", darkit.Image(path))
