"""Arrays as files: PNG images and WAV sounds, without another library."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

import numpy
from torch import Tensor

from darkit.errors import MediaError

_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's colour type: grey, grey and alpha, RGB, RGBA
_MOST_PIXELS = 2**26
_LONGEST_SIDE = 2**16
_MOST_CHANNELS = 16  # of a sound
_RATES = (1, 768_000)  # samples per second


def to_array(value: Any) -> numpy.ndarray[Any, Any]:
    """Return an array or a tensor as an array on the host, with a number type that NumPy knows."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy()  # type: ignore[no-any-return]
    return numpy.asarray(value)


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Return whether an array of this shape can be an image: two dimensions, or a third one of channels."""
    if len(shape) == 2:
        return min(shape) > 0 and max(shape) > 1
    return len(shape) == 3 and min(shape) > 0 and (shape[0] in _COLOURS or shape[2] in _COLOURS)


def to_png(value: Any) -> bytes:
    """Encode an image.

    Args:
        value: (height, width), (height, width, channels) or (channels, height, width), with 1 to 4 channels. A tensor
            of three dimensions has its channels first, and an array last, unless only the other order fits. Numbers
            are whole from 0 to 255, or fractions from 0 to 1.

    Raises:
        MediaError: The shape or a value does not fit.
    """
    shape = tuple(value.shape)
    if not is_image_shape(shape):
        raise MediaError(
            f"an image has the shape (height, width), (height, width, channels) or (channels, height, width) with 1 to "
            f"4 channels, not {shape}"
        )
    pixels = to_array(value)
    if pixels.ndim == 3:
        first = pixels.shape[0] in _COLOURS and (isinstance(value, Tensor) or pixels.shape[2] not in _COLOURS)
        pixels = pixels.transpose(1, 2, 0) if first else pixels
    else:
        pixels = pixels[:, :, None]
    height, width, channels = pixels.shape
    if height * width > _MOST_PIXELS or max(height, width) > _LONGEST_SIDE:
        raise MediaError(f"an image may have {_MOST_PIXELS:,} pixels, not {width} x {height}")
    rows = numpy.zeros((height, 1 + width * channels), numpy.uint8)  # each begins with its filter: none
    rows[:, 1:] = _to_bytes(pixels).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 4)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def to_wav(value: Any, rate: int) -> bytes:
    """Encode a sound with 16 bits per sample.

    Args:
        value: (time,), (time, channels) or (channels, time); the shorter dimension has the channels. Numbers are
            fractions from -1 to 1, or 16-bit integers.
        rate: Samples per second.

    Raises:
        MediaError: The shape, the rate or a value does not fit.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or not _RATES[0] <= rate <= _RATES[1]:
        raise MediaError(f"a sound has {_RATES[0]} to {_RATES[1]:,} samples per second, not {rate!r}")
    samples = to_array(value)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or not samples.size or min(samples.shape) > _MOST_CHANNELS:
        raise MediaError(f"a sound has the shape (time,), (time, channels) or (channels, time), not {samples.shape}")
    if samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.dtype.kind == "f":
        samples = (_within(samples, -1.0, 1.0) * 32767).round()
    elif samples.dtype != numpy.int16:
        raise MediaError(f"a sound has fractions from -1 to 1 or 16-bit integers, not {samples.dtype}")
    block = io.BytesIO()
    with wave.open(block, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numpy.ascontiguousarray(samples, "<i2").tobytes())
    return block.getvalue()


def _to_bytes(pixels: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(numpy.uint8) * 255
    if kind == "f":
        return (_within(pixels, 0.0, 1.0) * 255).round().astype(numpy.uint8)
    if kind in "iu":
        return _within(pixels, 0, 255).astype(numpy.uint8)
    raise MediaError(f"an image has numbers, not {pixels.dtype}")


def _within(values: numpy.ndarray[Any, Any], low: float, high: float) -> numpy.ndarray[Any, Any]:
    least, most = values.min(), values.max()
    if not (low <= least and most <= high):  # also where one is NaN
        wanted = "whole numbers from 0 to 255, or fractions from 0 to 1" if high == 255 else f"from {low:g} to {high:g}"
        raise MediaError(f"its values must be {wanted}, but are from {least} to {most}")
    return values


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
