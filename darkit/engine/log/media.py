"""What can be logged besides numbers: images, sounds, texts, histograms, tables and figures."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from torch import Tensor

from darkit.engine.log.encoding import is_image_shape, to_array, to_png, to_wav
from darkit.errors import MediaError
from darkit.runs.configs import plain
from darkit.runs.media import LARGEST, LONGEST_CAPTION, TYPES
from darkit.runs.media_content import ending_of, histogram_json, table_json
from darkit.runs.safe import UnreadableError, read_bytes

_MOST_BINS = 10_000
_MOST_CELLS = 1_000_000  # of a table
_FIGURES = {  # where the classes of other libraries are defined, and what they are
    ("matplotlib.figure", "Figure"): "matplotlib",
    ("plotly.basedatatypes", "BaseFigure"): "plotly",
    ("PIL.Image", "Image"): "pillow",
}


@dataclass(frozen=True)
class Encoded:
    """A medium as a run keeps it.

    Attributes:
        kind: A key of `darkit.runs.media.TYPES`.
        data: The content of its file.
        ending: The ending of the file's name.
        caption: Text shown with it.
    """

    kind: str
    data: bytes
    ending: str
    caption: str = ""


class Media(ABC):
    """A value that is logged as a file. It is encoded when it is logged."""

    def __init__(self, caption: str) -> None:
        if not isinstance(caption, str) or len(caption) > LONGEST_CAPTION:
            raise MediaError(f"A caption must be text of at most {LONGEST_CAPTION} characters, not {caption!r:.60}.")
        self.caption = caption

    @abstractmethod
    def encode(self) -> Encoded:
        """Return the medium as a file. Raises `MediaError`, with a sentence without its beginning."""


class Image(Media):
    """An image.

    Args:
        image: An array or tensor (height, width), (height, width, channels) or (channels, height, width) of whole
            numbers from 0 to 255 or fractions from 0 to 1; an image of Pillow; a figure of matplotlib; or the path or
            the bytes of a PNG, JPEG, GIF or WebP file. A tensor of three dimensions has its channels first, and an
            array last, unless only the other order fits.
        caption: Text shown with it.
    """

    def __init__(self, image: Any, caption: str = "") -> None:
        super().__init__(caption)
        self._image = image

    def encode(self) -> Encoded:
        """Return the image as a file."""
        image = self._image
        if isinstance(image, str | Path | bytes):
            data, ending = _read(image, "image")
            return Encoded("image", data, ending, self.caption)
        if isinstance(image, numpy.ndarray | Tensor):
            return Encoded("image", to_png(image), "png", self.caption)
        if _library(type(image)) in ("pillow", "matplotlib"):
            return Encoded("image", _png_of(image), "png", self.caption)
        raise MediaError(
            "an image is an array, a tensor, an image of Pillow, a figure of matplotlib, or the path or the bytes of "
            f"a file, not {type(image).__name__}"
        )


class Audio(Media):
    """A sound.

    Args:
        sound: An array or tensor (time,), (time, channels) or (channels, time) of fractions from -1 to 1 or of 16-bit
            integers; or the path or the bytes of a WAV, MP3, Ogg or FLAC file.
        rate: Samples per second of an array.
        caption: Text shown with it.
    """

    def __init__(self, sound: Any, rate: int | None = None, caption: str = "") -> None:
        super().__init__(caption)
        self._sound, self._rate = sound, rate

    def encode(self) -> Encoded:
        """Return the sound as a file."""
        if isinstance(self._sound, str | Path | bytes):
            data, ending = _read(self._sound, "audio")
            return Encoded("audio", data, ending, self.caption)
        if not isinstance(self._sound, numpy.ndarray | Tensor):
            raise MediaError(
                f"a sound is an array, a tensor, or the path or the bytes of a file, not {type(self._sound).__name__}"
            )
        if self._rate is None:
            raise MediaError("a sound of an array needs its rate=, the samples per second")
        return Encoded("audio", to_wav(self._sound, self._rate), "wav", self.caption)


class Text(Media):
    """A text of any length; it is shown as text, whatever it says.

    Args:
        text: The text.
        caption: Text shown with it.
    """

    def __init__(self, text: str, caption: str = "") -> None:
        super().__init__(caption)
        self._text = text

    def encode(self) -> Encoded:
        """Return the text as a file."""
        if not isinstance(self._text, str):
            raise MediaError(f"a text is a str, not {type(self._text).__name__}")
        return Encoded("text", self._text.encode("utf-8", "backslashreplace"), "txt", self.caption)


class Histogram(Media):
    """How often values are how large.

    Args:
        values: An array or tensor of numbers, or a sequence of them. Those that are not finite are left out, which the
            caption says.
        bins: The number of bins.
        edges: The edges of bins that were counted already; ``values`` are then their counts, one less.
        caption: Text shown with it.
    """

    def __init__(self, values: Any, bins: int = 64, *, edges: Sequence[float] | None = None, caption: str = "") -> None:
        super().__init__(caption)
        self._values, self._bins, self._edges = values, bins, edges

    def encode(self) -> Encoded:
        """Return the histogram as a file."""
        values = self._numbers(self._values)
        if self._edges is not None:
            try:
                data = histogram_json(self._numbers(self._edges).tolist(), values.tolist())
            except ValueError:
                raise MediaError("a histogram of counts needs one edge more than counts, and finite numbers") from None
            return Encoded("histogram", data, "json", self.caption)
        bins = self._bins
        if isinstance(bins, bool) or not isinstance(bins, int) or not 0 < bins <= _MOST_BINS:
            raise MediaError(f"a histogram has 1 to {_MOST_BINS:,} bins, not {bins!r}")
        finite = values[numpy.isfinite(values)]
        if not finite.size:
            raise MediaError(f"a histogram needs finite values, but has {values.size} others")
        try:
            with numpy.errstate(over="ignore", invalid="ignore"):
                counts, edges = numpy.histogram(finite, bins)
            data = histogram_json(edges.tolist(), counts.tolist())
        except ValueError:
            raise MediaError(f"its values, from {finite.min()} to {finite.max()}, are too far apart for bins") from None
        left = values.size - finite.size
        note = f"{left:,} of {values.size:,} values are not finite." if left else ""
        return Encoded("histogram", data, "json", " ".join(part for part in (self.caption, note) if part))

    @staticmethod
    def _numbers(values: Any) -> numpy.ndarray[Any, Any]:
        try:
            return to_array(values).astype(float).reshape(-1)
        except (TypeError, ValueError) as error:
            raise MediaError(f"a histogram has real numbers, not {type(values).__name__}") from error


class Table(Media):
    """A table of numbers, text and empty cells; any other cell is shown as its text.

    Args:
        columns: The names of the columns; or a data frame, or a list of dicts, which have them.
        rows: The rows, each as long as ``columns``.
        caption: Text shown with it.
    """

    def __init__(self, columns: Any, rows: Sequence[Sequence[Any]] | None = None, caption: str = "") -> None:
        super().__init__(caption)
        self._columns, self._rows = columns, rows

    def encode(self) -> Encoded:
        """Return the table as a file."""
        columns, rows = self._parts()
        names = [str(name) for name in columns]
        for row in rows:
            if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != len(names):
                raise MediaError(f"each row of a table must have its {len(names)} cells, not {row!r:.60}")
        if len(names) * len(rows) > _MOST_CELLS:
            raise MediaError(f"a table may have {_MOST_CELLS:,} cells, not {len(rows):,} rows of {len(names)}")
        return Encoded("table", table_json(names, [[_cell(one) for one in row] for row in rows]), "json", self.caption)

    def _parts(self) -> tuple[Sequence[Any], Sequence[Any]]:
        columns, rows = self._columns, self._rows
        if rows is not None:
            if isinstance(columns, str) or not isinstance(columns, Sequence) or not isinstance(rows, Sequence):
                raise MediaError("a table has a list of columns and a list of rows")
            return columns, rows
        if callable(getattr(columns, "rows", None)):  # polars
            return columns.columns, columns.rows()
        if hasattr(columns, "columns") and hasattr(columns, "itertuples"):  # pandas
            return list(columns.columns), list(columns.itertuples(index=False, name=None))
        if isinstance(columns, Sequence) and columns and all(isinstance(row, Mapping) for row in columns):
            names = list(dict.fromkeys(name for row in columns for name in row))
            return names, [[row.get(name) for name in names] for row in columns]
        raise MediaError(f"a table has columns and rows, or is a data frame or a list of dicts, not {columns!r:.60}")


def is_media(value: Any) -> bool:
    """Return whether a value is logged as a file: one of darkit's classes, or a figure or image of another library."""
    return isinstance(value, Media) or bool(_library(type(value)))


def encode(key: str, value: Any, *, arrays: bool = True) -> Encoded | None:
    """Return a value as a file, as it is now; None if it is not logged as one.

    Args:
        key: The name that it is logged under, for errors.
        value: A `Media`, a figure of matplotlib or plotly, an image of Pillow, or an array or tensor like an image.
        arrays: Whether an array or a tensor that can be an image is one: of bytes, booleans or fractions.

    Raises:
        MediaError: It cannot be encoded.
    """
    try:
        if isinstance(value, Media):
            return value.encode()
        library = _library(type(value))
        if library == "pillow":
            return Encoded("image", _png_of(value), "png")
        if library == "matplotlib":
            return Encoded("figure", _png_of(value), "png")
        if library == "plotly":
            return Encoded("figure", _json_of(value), "json")
        if arrays and isinstance(value, numpy.ndarray | Tensor) and _is_like_an_image(value):
            return Encoded("image", to_png(value), "png")
    except MediaError as error:
        raise MediaError(f"{key!r} cannot be logged: {error}.") from error
    return None


def media_of(outputs: Any, numbers: Collection[str]) -> dict[str, Any]:
    """Return the media in the output of a step, of which these numbers are logged already."""
    if not isinstance(outputs, Mapping) or len(outputs) <= len(numbers):
        return {}
    return {str(key): value for key, value in outputs.items() if is_media(value)}


def split(values: Mapping[str, Any], *, arrays: bool = False) -> tuple[dict[str, Any], dict[str, Encoded]]:
    """Return what belongs into a row, and the media by their names; see `encode`.

    Raises:
        MediaError: A medium cannot be encoded.
    """
    rest: dict[str, Any] = {}
    media: dict[str, Encoded] = {}
    for key, value in values.items():
        plainly = isinstance(value, float | int | str | None)
        encoded = None if plainly else encode(key, value, arrays=arrays)
        if encoded is None:
            rest[key] = value
        else:
            media[key] = encoded
    return rest, media


def _library(kind: type) -> str:
    """Return the library of a figure or image, without importing it."""
    return next((found for part in kind.__mro__ if (found := _FIGURES.get((part.__module__, part.__name__)))), "")


def _is_like_an_image(value: Any) -> bool:
    kind = "f" if isinstance(value, Tensor) and value.is_floating_point() else str(value.dtype).rpartition(".")[2]
    kind = value.dtype.kind if isinstance(value, numpy.ndarray) and value.dtype.kind in "fb" else kind
    return kind in ("f", "b", "bool", "uint8") and is_image_shape(tuple(value.shape))


def _png_of(value: Any) -> bytes:
    block = io.BytesIO()
    save: Callable[..., Any] = value.savefig if hasattr(value, "savefig") else value.save
    try:
        save(block, format="png")
    except Exception as error:  # of another library
        raise MediaError(f"{type(value).__name__} gives no PNG ({type(error).__name__}: {error})") from error
    return block.getvalue()


def _json_of(value: Any) -> bytes:
    try:
        text = value.to_json()
        json.loads(text)
    except Exception as error:
        raise MediaError(f"{type(value).__name__} gives no JSON ({type(error).__name__}: {error})") from error
    return str(text).encode()


def _read(source: Any, kind: str) -> tuple[bytes, str]:
    """Return the bytes of a file or of memory, and the ending that they show."""
    data = source
    if not isinstance(source, bytes):
        try:
            data = read_bytes(Path(source).resolve(), LARGEST)
        except (OSError, UnreadableError) as error:
            raise MediaError(f"the file {str(source)!r} cannot be read ({error})") from error
    ending = ending_of(data)
    if ending not in TYPES[kind]:
        raise MediaError(f"its content must be {', '.join(TYPES[kind])}; nothing else is shown by a browser safely")
    return data, ending


def _cell(value: Any) -> Any:
    cell = plain(value)
    return cell if cell is None or isinstance(cell, bool | int | float | str) else json.dumps(cell, default=str)
