"""The file of a W&B run: records in the framing of LevelDB's log, each one `Record` of W&B's protocol.

Blocks have 32 KiB. A record, or each part of one that does not fit into its block, has a CRC-32 of type and content, a
length (2 bytes) and a type: whole, first, middle or last. Fewer than 7 bytes at a block's end are padding. The first
block begins with ``:W&B``, 0xBEE1 and a version.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from darkit.errors import SourceError
from darkit.integrations.importers.events import LARGEST_RECORD, TornError
from darkit.integrations.importers.reading import opened
from darkit.integrations.importers.wire import Message

_MAGIC = b":W&B\xe1\xbe"
_VERSION = 0
_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[Message]:
    """Yield the records of a file.

    Raises:
        TornError: A record is incomplete or damaged, after all those before it were yielded.
        SourceError: It cannot be read, or is no such file.
    """
    end = 0
    for content, position in _contents(path):
        try:
            yield Message(content)
        except ValueError as error:
            raise TornError(end, "is not a record") from error
        end = position


def _contents(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the content of each record and the position after it."""
    with opened(path) as file:
        start = file.read(len(_MAGIC) + 1)
        if start[:-1] != _MAGIC:
            raise SourceError(f"{path} is not a file of W&B.")
        if start[-1] != _VERSION:
            raise SourceError(f"{path} has version {start[-1]} of W&B's format; darkit reads version {_VERSION}.")
        position = whole = len(start)
        parts: list[bytes] = []
        while True:
            left = _BLOCK - position % _BLOCK
            if left < _HEADER.size:
                position += len(file.read(left))
                continue
            header = file.read(_HEADER.size)
            if not header and not parts:
                return
            if len(header) < _HEADER.size:
                raise TornError(whole, "is half written")
            checksum, length, kind = _HEADER.unpack(header)
            content = file.read(length)
            position += _HEADER.size + length
            if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or (kind in (_WHOLE, _FIRST)) == bool(parts):
                raise TornError(whole, "is damaged")
            if len(content) < length:
                raise TornError(whole, "is half written")
            if zlib.crc32(content, zlib.crc32(bytes([kind]))) != checksum:
                raise TornError(whole, "is damaged")
            parts.append(content)
            if sum(map(len, parts)) > LARGEST_RECORD:
                raise TornError(whole, "is too large")
            if kind in (_WHOLE, _LAST):
                yield b"".join(parts), position
                parts, whole = [], position
