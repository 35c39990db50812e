"""Tokens on disk: flat files of ids that are memory-mapped, with an index of the documents.

A part (``train`` or ``val``) of prepared data is ``PART-00000.bin``, ``PART-00001.bin``, ...: little-endian
``uint16`` or, for vocabularies above 65,536, ``uint32``, one id after the other, every file but the last of the
same number of ids; and ``PART.index``: little-endian ``int64``, where each document begins, counted in ids from the
part's beginning, and finally the end of the part.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from darkit.errors import DataError

SHARD_TOKENS = 2**27
_SMALL = 2**16


@dataclass(frozen=True)
class PartFacts:
    """The facts of a part in the manifest.

    Attributes:
        tokens: Number of ids.
        documents: Number of documents.
        characters: Number of characters of the documents.
        dtype: ``uint16`` or ``uint32``.
        shard_tokens: Number of ids in a full file.
        files: Number of files.
    """

    tokens: int
    documents: int
    characters: int
    dtype: str
    shard_tokens: int
    files: int


class ShardWriter:
    """Writer of one part, document by document.

    Args:
        folder: The target folder, which must exist.
        part: The part's name.
        vocabulary: Vocabulary size, which decides the size of an id.
        shard_tokens: Ids per file.

    Attributes:
        counts: The number of each token written (vocabulary).
    """

    def __init__(self, folder: Path, part: str, vocabulary: int, shard_tokens: int = SHARD_TOKENS) -> None:
        self.counts: NDArray[numpy.int64] = numpy.zeros(vocabulary, dtype=numpy.int64)
        self._folder, self._part = folder, part
        self._shard_tokens = shard_tokens
        self._dtype = numpy.dtype("<u2" if vocabulary <= _SMALL else "<u4")
        self._file: IO[bytes] | None = None
        self._files = 0
        self._room = 0
        self._ends = [0]
        self._characters = 0

    def add(self, documents: Sequence[Sequence[int]], characters: int) -> None:
        """Write documents.

        Args:
            documents: Their ids.
            characters: Their total number of characters.
        """
        for document in documents:
            self._ends.append(self._ends[-1] + len(document))
        self._characters += characters
        empty = numpy.empty(0, self._dtype)
        row = numpy.concatenate([empty, *(numpy.asarray(document, dtype=self._dtype) for document in documents)])
        self.counts += numpy.bincount(row.astype(numpy.int64), minlength=len(self.counts))
        while len(row):
            file = self._file if self._file is not None and self._room else self._next_file()
            piece, row = row[: self._room], row[self._room :]
            file.write(piece.tobytes())
            self._room -= len(piece)

    def close(self) -> PartFacts:
        """Make all files durable and return the facts for the manifest."""
        self._close_file()
        with (self._folder / index_name(self._part)).open("wb") as file:
            file.write(numpy.asarray(self._ends, dtype="<i8").tobytes())
            _sync(file)
        return PartFacts(
            tokens=self._ends[-1],
            documents=len(self._ends) - 1,
            characters=self._characters,
            dtype="uint16" if self._dtype.itemsize == 2 else "uint32",
            shard_tokens=self._shard_tokens,
            files=self._files,
        )

    def _next_file(self) -> IO[bytes]:
        self._close_file()
        self._file = (self._folder / shard_name(self._part, self._files)).open("wb")
        self._files += 1
        self._room = self._shard_tokens
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            _sync(self._file)
            self._file.close()
            self._file = None


class TokenStore:
    """A part of prepared data, memory-mapped; copies in worker processes share the memory.

    Args:
        folder: Its folder.
        part: The part's name.
        facts: Its facts in the manifest.
        vocabulary: Vocabulary size.

    Raises:
        DataError: A file is missing or has another size.
    """

    def __init__(self, folder: Path, part: str, facts: PartFacts, vocabulary: int) -> None:
        self.folder, self.part, self.facts, self.vocabulary = folder, part, facts, vocabulary
        self._maps: list[NDArray[Any]] | None = None
        self._bounds: NDArray[numpy.int64] | None = None
        self._check()

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.facts.documents

    def __len__(self) -> int:
        return self.facts.tokens

    @property
    def bounds(self) -> NDArray[numpy.int64]:
        """Start of each document, and finally the end of the part (documents + 1)."""
        if self._bounds is None:
            self._bounds = numpy.memmap(self.folder / index_name(self.part), dtype="<i8", mode="r")
        return self._bounds

    def tokens(self, first: int, end: int) -> NDArray[Any]:
        """Return a range of ids (end - first) of the part."""
        size = self.facts.shard_tokens
        pieces = [
            self._mapped()[number][max(0, first - number * size) : end - number * size]
            for number in range(first // size, -(-end // size))
        ]
        return pieces[0] if len(pieces) == 1 else numpy.concatenate([numpy.empty(0, self.facts.dtype), *pieces])

    def windows(self, firsts: Sequence[int], size: int) -> NDArray[numpy.int64]:
        """Return the ids of windows (windows, size), given their first places."""
        room = self.facts.shard_tokens
        found = numpy.empty((len(firsts), size), dtype=numpy.int64)
        places: dict[int, list[int]] = {}  # of the windows in each file
        for place, first in enumerate(firsts):
            if first % room + size <= room:
                places.setdefault(first // room, []).append(place)
            else:
                found[place] = self.tokens(first, first + size)
        for number, rows in places.items():
            found[rows] = gather_windows(self._mapped()[number], [firsts[row] - number * room for row in rows], size)
        return found

    def document(self, index: int) -> NDArray[Any]:
        """Return the ids of a document."""
        if not 0 <= index < self.documents:
            raise IndexError(index)
        return self.tokens(int(self.bounds[index]), int(self.bounds[index + 1]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": None, "_bounds": None}

    def _mapped(self) -> list[NDArray[Any]]:
        if self._maps is None:
            names = (shard_name(self.part, number) for number in range(self.facts.files))
            dtype = numpy.dtype(self.facts.dtype).newbyteorder("<")
            maps = (numpy.memmap(self.folder / name, dtype=dtype, mode="r") for name in names)
            self._maps = [mapped.view(numpy.ndarray) for mapped in maps]  # slices of which cost less
        return self._maps

    def _check(self) -> None:
        size = numpy.dtype(self.facts.dtype).itemsize
        wanted = {index_name(self.part): 8 * (self.facts.documents + 1)}
        for number in range(self.facts.files):
            tokens = min(self.facts.shard_tokens, self.facts.tokens - number * self.facts.shard_tokens)
            wanted[shard_name(self.part, number)] = size * tokens
        for name, length in wanted.items():
            path = self.folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != length:
                described = "is missing" if found is None else f"has {found} bytes instead of {length}"
                raise DataError(f"The prepared data in {self.folder} is damaged: {name} {described}.")


def gather_windows(row: NDArray[Any], firsts: Sequence[int], size: int) -> NDArray[numpy.int64]:
    """Return windows (windows, size) of a row of ids, given their first places."""
    every = as_strided(row, (len(row) - size + 1, size), row.strides * 2, writeable=False)
    return every[firsts].astype(numpy.int64)


def shard_name(part: str, number: int) -> str:
    """Return the name of a part's file of ids."""
    return f"{part}-{number:05}.bin"


def index_name(part: str) -> str:
    """Return the name of a part's index."""
    return f"{part}.index"


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
