"""Archives for `torch.load`, written without holding the interpreter's lock.

`torch.save` holds that lock while it computes the CRC of a tensor's bytes, so a thread that saves with it stops the
training for about half a second per gigabyte. The format is torch's: a zip archive without compression, whose entries
begin at multiples of 64 bytes.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from darkit.engine.checkpoints.digest import DigestedFile, pieces_of
from darkit.runs.files import open_atomically

_FOLDER = "archive"  # of all entries
_ALIGNMENT = 64  # bytes; torch's default
_PADDING = struct.Struct("<HH")  # of an extra field of a zip entry: its id and length
_PADDING_ID = 0x4246  # the id that torch uses
_PROTOCOL = 2  # of pickle: the one of torch.save
_LARGE = 2**31  # bytes; larger entries need the fields of zip64
_SIZES_FOLLOW = 0x08  # flag of an entry: its CRC and sizes come after its content, as `zipfile` writes to a stream
_OF_TORCHS_LAYOUT = (".format_version", ".storage_alignment")  # they promise places that follow from the sizes alone
_VERSION = b"3\n"  # of torch's format


def save_archive(content: Mapping[Any, Any], file: DigestedFile) -> None:
    """Write what ``torch.load(weights_only=True)`` returns.

    Args:
        content: Readable values; tensors are in host memory, which must not change until ``file.finish``.
        file: The file.

    Raises:
        OSError: The file system failed.
    """
    archive = _Archive(file)
    try:
        torch.serialization._save(dict(content), archive, pickle, _PROTOCOL, False)  # type: ignore[no-untyped-call]
    finally:
        archive.close()


def write_archive(
    path: Path,
    content: Mapping[Any, Any],
    *,
    stale: Path | None = None,
    prepare: Callable[[int, str], None] = lambda size, sha256: None,
) -> tuple[int, str]:
    """Write a file for `torch.load` durably; return its size and sha256.

    ``stale`` and ``prepare``, which gets the size and sha256, are as for `darkit.runs.files.open_atomically`.

    Raises:
        StorageError: The file system failed.
    """
    written = (0, "")
    with (
        open_atomically(path, stale=stale, prepare=lambda: prepare(*written)) as file,
        DigestedFile(file) as digested,
    ):
        save_archive(content, digested)
        sha256 = digested.finish()
        written = (digested.size, sha256)
    return written


class _Archive:
    """What `torch.save` expects of its writer of archives."""

    def __init__(self, file: DigestedFile) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(cast(IO[bytes], file), "w", zipfile.ZIP_STORED)
        self._names = hashlib.sha256()

    def write_record(self, name: str, data: Any, size: int) -> None:
        """Write an entry of text, bytes or a storage."""
        if name in _OF_TORCHS_LAYOUT:
            return
        if isinstance(data, torch.UntypedStorage):
            content: bytes | memoryview = _bytes_of(data)
        else:
            content = data.encode() if isinstance(data, str) else bytes(data)
        entry = zipfile.ZipInfo(f"{_FOLDER}/{name}")
        large = size >= _LARGE
        entry.flag_bits = _SIZES_FOLLOW
        entry.extra = _padding(self._file.size + len(entry.FileHeader(large)))
        with self._zip.open(entry, "w", force_zip64=large) as opened:
            for piece in pieces_of(content):
                self._file.beside(opened.write, piece)  # which computes the CRC
        self._names.update(f"{entry.filename} {entry.CRC} {size}\n".encode())

    def close(self) -> None:
        """Write the entries that torch adds, and the directory."""
        try:
            self.write_record("version", _VERSION, len(_VERSION))
            identity = self._names.hexdigest()[:40]
            self.write_record(".data/serialization_id", identity, len(identity))
        finally:
            self._zip.close()


def _bytes_of(storage: torch.UntypedStorage) -> memoryview:
    """Return a view of the bytes of a storage in host memory."""
    flat = torch.empty(0, dtype=torch.uint8).set_(storage)
    return flat.numpy().data


def _padding(position: int) -> bytes:
    """Return an extra field after which the content begins at a multiple of the alignment."""
    count = -(position + _PADDING.size) % _ALIGNMENT
    return _PADDING.pack(_PADDING_ID, count) + b"Z" * count
