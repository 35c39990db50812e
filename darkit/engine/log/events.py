"""The records of TensorBoard's event files, made for many rows at once.

A file is a sequence of TFRecords: the length of the data (8 bytes, little-endian), its masked CRC-32C, the data, and
the masked CRC-32C of that. The data is an ``Event`` of ``tensorboard/compat/proto/event.proto`` in the wire format of
protocol buffers. TensorBoard's own writer takes as long for one event as a small model for a tenth of its step, most of
it for checksums in Python, and its modules take 15 MB of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy
from numpy.typing import NDArray

Bytes = NDArray[numpy.uint8]  # (records, bytes)
_X_COLUMNS = ("step", "time")
_NUMBERS = (float, int)
_SPAN = 128  # bytes that are looked up at once for a checksum
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reversed: RFC 3720, appendix B.4
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = b"\x09", b"\x10", b"\x1a", b"\x2a", b"\x3a"  # of Event
_VALUE, _TAG, _SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"  # of Summary, and of its values
_START = b"\x08\x01"  # a SessionLog whose status is START


def file_version(wall_time: float) -> bytes:
    """Return the record that an event file begins with."""
    return _record(wall_time, _FILE_VERSION + _sized(b"brain.Event:2"))


def session_start(wall_time: float, step: int) -> bytes:
    """Return the record at which readers drop all earlier events of this step and later ones."""
    return _record(wall_time, _STEP + _varint(step) + _SESSION_LOG + _sized(_START))


def scalars(rows: Sequence[Mapping[str, Any]], now: float) -> bytes:
    """Return the numbers of each row as one record of scalars, in the order of the rows.

    Args:
        rows: A row's ``step`` and ``time`` are the event's, its other numbers are scalars; anything else is left out.
        now: The time of rows without one, in Unix seconds.
    """
    parts = [part for places in _places(map(tuple, rows)) for part in _of_names(rows, places, now)]
    if len(parts) == 1:
        return parts[0][1].tobytes()
    ordered = [b""] * len(rows)
    for places, records in parts:
        for place, record in zip(places, records, strict=True):
            ordered[place] = record.tobytes()
    return b"".join(ordered)


def _places(keys: Iterable[Any]) -> list[list[int]]:
    """Return the places of equal keys."""
    found: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return list(found.values())


def _of_names(rows: Sequence[Mapping[str, Any]], places: list[int], now: float) -> Iterator[tuple[list[int], Bytes]]:
    """Yield the records of rows with the same names, in parts with the same layout, with the places of their rows."""
    chosen = [rows[place] for place in places]
    columns = dict(zip(chosen[0], zip(*[row.values() for row in chosen], strict=True), strict=True))
    numeric = {name: {issubclass(kind, _NUMBERS) for kind in set(map(type, row))} for name, row in columns.items()}
    if any(len(kinds) > 1 for kinds in numeric.values()):
        for part in _places(tuple(isinstance(value, _NUMBERS) for value in row.values()) for row in chosen):
            yield from _of_names(rows, [places[index] for index in part], now)
        return
    numbers = {name: column for name, column in columns.items() if numeric[name] == {True}}
    steps = [step if isinstance(step, int) else 0 for step in numbers.get("step", [0] * len(chosen))]
    times = numpy.array(numbers.get("time", [now] * len(chosen)), "<f8")
    tags = tuple(name for name in numbers if name not in _X_COLUMNS)
    values = numpy.empty((len(chosen), len(tags)), "<f4")
    with numpy.errstate(over="ignore"):  # beyond the range of TensorBoard's numbers
        for index, tag in enumerate(tags):
            values[:, index] = numbers[tag]
    is_one = _length(min(steps)) == _length(max(steps))
    for part in [list(range(len(steps)))] if is_one else _places(map(_length, steps)):
        records = _records(tags, times[part], [steps[index] for index in part], values[part])
        yield [places[index] for index in part], records


def _records(tags: tuple[str, ...], times: Any, steps: Sequence[int], values: Any) -> Bytes:
    """Return records that differ only in numbers."""
    length = _length(steps[0])
    template, places = _template(tags, length)
    records = numpy.tile(template, (len(steps), 1))
    records[:, 13:21] = times.view(numpy.uint8).reshape(-1, 8)
    records[:, 22 : 22 + length] = _varints(steps, length)
    if tags:
        records[:, places] = values.view(numpy.uint8)
    records[:, -4:] = _masked(records[:, 12:-4])
    return records


@lru_cache(maxsize=256)
def _template(tags: tuple[str, ...], length: int) -> tuple[Bytes, NDArray[numpy.intp]]:
    """Return a record with zeros for all numbers, and the places of its scalars."""
    head = _WALL_TIME + bytes(8) + _STEP + bytes(length)
    summary, ends = bytearray(), []
    for tag in tags:
        value = _TAG + _sized(tag.encode("utf-8", "replace")) + _SIMPLE_VALUE + bytes(4)
        summary += _VALUE + _sized(value)
        ends.append(len(summary))
    data = head + _SUMMARY + _sized(bytes(summary))
    first = 12 + len(data) - len(summary)
    places = [first + end - 4 + byte for end in ends for byte in range(4)]
    return numpy.frombuffer(_framed(data), numpy.uint8), numpy.array(places, numpy.intp)


def _record(wall_time: float, rest: bytes) -> bytes:
    return _framed(_WALL_TIME + numpy.array(wall_time, "<f8").tobytes() + rest)


def _framed(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    checks = [_masked(numpy.frombuffer(part, numpy.uint8)[None]).tobytes() for part in (length, data)]
    return length + checks[0] + data + checks[1]


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    return _varints((number,), _length(number)).tobytes()


def _length(number: int) -> int:
    """Return the number of bytes of a varint; a negative number has those of its two's complement."""
    return max(1, -(-number.bit_length() // 7)) if number >= 0 else 10


def _varints(numbers: Sequence[int], length: int) -> Bytes:
    shifts = numpy.arange(0, 7 * length, 7, dtype=numpy.uint64)
    groups = (numpy.array(numbers, numpy.int64).view(numpy.uint64)[:, None] >> shifts) & numpy.uint64(0x7F)
    groups[:, :-1] |= numpy.uint64(0x80)
    return groups.astype(numpy.uint8)


def _masked(data: Bytes) -> Bytes:
    """Return the masked CRC-32C of each record as bytes, as ``tensorflow/core/lib/hash/crc32c.h`` defines it."""
    check = crc32c(data)
    masked = ((check >> numpy.uint32(15)) | (check << numpy.uint32(17))) + numpy.uint32(0xA282EAD8)
    return masked.astype("<u4").view(numpy.uint8).reshape(-1, 4)


def crc32c(data: Bytes) -> NDArray[numpy.uint32]:
    """Return the CRC-32C of each of several records of the same length, at least 4 bytes.

    What a byte adds to a checksum depends only on its distance from the end, and these parts are independent: so a span
    of bytes is looked up at once. What is before the span counts as a change of its first four bytes.
    """
    table = _table()
    count, width = data.shape
    check = numpy.full(count, 0xFFFFFFFF, "<u4")
    begin, end = 0, width % _SPAN
    if end < 4:
        end += _SPAN
    while begin < width:
        span = data[:, begin:end].astype(numpy.intp)
        span[:, :4] ^= check.view(numpy.uint8).reshape(-1, 4)
        span += numpy.arange(end - begin - 1, -1, -1) * 256
        check = numpy.bitwise_xor.reduce(table[span], axis=1)
        begin, end = end, end + _SPAN
    return ~check


@cache
def _table() -> NDArray[numpy.uint32]:
    """Return what each byte adds to a checksum at each distance from the end."""
    byte = numpy.arange(256, dtype="<u4")
    for _ in range(8):
        byte = (byte >> numpy.uint32(1)) ^ (byte & numpy.uint32(1)) * numpy.uint32(_POLYNOMIAL)
    rows = [byte]
    while len(rows) < _SPAN + 4:
        rows.append(byte[rows[-1] & numpy.uint32(0xFF)] ^ (rows[-1] >> numpy.uint32(8)))
    return numpy.concatenate(rows)
