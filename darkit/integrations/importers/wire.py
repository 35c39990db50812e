"""Protocol buffers on the wire, as far as logs need them: fields by number, without a schema.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | bytes


class Message:
    """The fields of a message; several values of one field keep their order.

    Args:
        data: The message.

    Raises:
        ValueError: It is not a message.
    """

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[Value]] = {}
        for number, value in _fields(data):
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def messages(self, number: int) -> list[Message]:
        """Return all values of a field as messages. Raises `ValueError`."""
        return [Message(value) for value in self._fields.get(number, ()) if isinstance(value, bytes)]

    def message(self, number: int) -> Message:
        """Return the last value of a field as a message, or an empty one. Raises `ValueError`."""
        value = self._fields.get(number, [b""])[-1]
        return Message(value if isinstance(value, bytes) else b"")

    def texts(self, number: int) -> list[str]:
        """Return all values of a field as text."""
        return [value.decode("utf-8", "replace") for value in self._fields.get(number, ()) if isinstance(value, bytes)]

    def text(self, number: int) -> str:
        """Return the last value of a field as text, or nothing."""
        return (self.texts(number) or [""])[-1]

    def integer(self, number: int) -> int:
        """Return the last value of a field as a signed number of 64 bits, or 0."""
        value = self._fields.get(number, [0])[-1]
        if not isinstance(value, int):
            return 0
        return value - 2**64 if value >= 2**63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"A field of the unknown wire type {kind}.")
        if length > len(data) - position:
            raise ValueError("A field is longer than its message.")
        content = data[position : position + length]
        position += length
        yield tag >> 3, content if kind == _BYTES else struct.unpack("<Q" if length == 8 else "<I", content)[0]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ValueError("A number is not ended.")
