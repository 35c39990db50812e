"""TensorBoard's event files: records in TensorFlow's framing, each one `Event` of protobuf.

A record is its length (8 bytes, little-endian), a CRC-32C of the length, the content, and a CRC-32C of the content.
Both checksums are rotated and shifted ("masked").
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from darkit.integrations.importers.reading import opened

LARGEST_RECORD = 256 * 2**20  # bytes
_HEADER = struct.Struct("<QI")
_POLYNOMIAL = 0x82F63B78


class TornError(Exception):
    """A file whose rest cannot be read.

    Args:
        position: The byte after the last whole record.
        reason: Why, as the end of a sentence.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"it was read up to byte {position:,}; what follows {reason}")
        self.position = position


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each record's position in the file and its content.

    Raises:
        TornError: A record is incomplete or damaged, after all those before it were yielded.
        SourceError: The file cannot be read.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise TornError(position, "is half written")
            length, checksum = _HEADER.unpack(header)
            if _masked(crc32c(header[:8])) != checksum:
                raise TornError(position, "is damaged")
            if length > min(LARGEST_RECORD, size):
                raise TornError(position, "is half written" if length <= LARGEST_RECORD else "is too large")
            content, end = file.read(length), file.read(4)
            if len(content) < length or len(end) < 4:
                raise TornError(position, "is half written")
            if _masked(crc32c(content)) != int.from_bytes(end, "little"):
                raise TornError(position, "is damaged")
            yield position, content
            position += _HEADER.size + length + 4


def read_event(file: IO[bytes], position: int) -> Any:
    """Read the event at a position that `read_records` has given."""
    from tensorboard.compat.proto.event_pb2 import Event

    file.seek(position)
    length, _ = _HEADER.unpack(file.read(_HEADER.size))
    return Event.FromString(file.read(length))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes."""
    table, value = _TABLE, 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _masked(value: int) -> int:
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()
