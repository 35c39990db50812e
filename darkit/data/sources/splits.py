"""Which documents are trained on and which are for evaluation: never the same content in both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy
from numpy.typing import NDArray

from darkit.data.sources.source import Record, Source, content_key
from darkit.errors import DataError, listing

TRAIN, VAL, LEFT_OUT = 0, 1, 2
_TOLERANCE = 1.02  # by how much the part for evaluation may be larger than was asked for


@dataclass(frozen=True)
class Split:
    """Where each record of a source goes.

    Attributes:
        parts: `TRAIN`, `VAL` or `LEFT_OUT` of every record, in the source's order (records).
        fingerprint: A sha256 over the source and the parts.
        how: What the split was made by, as plain values.
    """

    parts: NDArray[numpy.uint8]
    fingerprint: str
    how: dict[str, Any] = field(default_factory=dict)

    def records(self, source: Source, part: int) -> Iterator[Record]:
        """Read the records of one part."""
        for where, record in zip(self.parts, source.records(), strict=True):
            if where == part:
                yield record

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` tells of the split."""
        counts = {name: int((self.parts == part).sum()) for name, part in (("train", TRAIN), ("val", VAL))}
        left_out = int((self.parts == LEFT_OUT).sum())
        return {**self.how, **counts, **({"left_out": left_out} if left_out else {}), "fingerprint": self.fingerprint}


def split_records(
    source: Source,
    *,
    val_fraction: float = 0.1,
    val_files: str | Sequence[str] | None = None,
    seed: int = 0,
    by: Sequence[str] | None = None,
) -> Split:
    """Split the records of a source, reading it once and keeping only a number of each.

    By fraction, records of the same content are one: they all go to the same part. By file, a record outside these
    files whose content is in them too is left out.

    Args:
        source: Two records of different content at least.
        val_fraction: About which part of the characters is for evaluation, between 0 and 1; 0 makes no such part.
        val_files: Names or patterns of the files that are for evaluation instead; a pattern is matched with the path
            and with the name alone.
        seed: Seed of the choice by fraction.
        by: The fields that are the content, such as a text but not its label: the same text with two labels is one
            content. None takes all fields.

    Raises:
        DataError: There are no records, the fraction is out of its range, no file matches or all do, or there is too
            little to split.
    """
    check_val_fraction(val_fraction)
    chosen = _matching(source.files, val_files)
    salt = "" if chosen else str(seed)
    keys, sizes, inside = [], [], []
    for record in source.records():
        content = record.values if by is None else {name: record.values[name] for name in by}
        keys.append(content_key(content, salt))
        sizes.append(sum(len(str(value)) for value in record.values.values()))
        inside.append(record.file in chosen)
    if not keys:
        raise DataError(f"There are no records in {listing(source.files)}.")
    if chosen:
        parts = _by_file(keys, inside)
        how: dict[str, Any] = {"by": "files", "files": [source.files[number] for number in sorted(chosen)]}
    else:
        parts = choose_validation(keys, sizes, val_fraction)
        how = {"by": "fraction", "val_fraction": val_fraction, "seed": seed}
    if not (parts == TRAIN).any():
        raise DataError("The split leaves nothing to train on: all of it is for evaluation.")
    digest = hashlib.sha256(source.fingerprint().encode() + parts.tobytes())
    return Split(parts, digest.hexdigest(), how)


def check_val_fraction(fraction: float, *, needed: bool = False) -> None:
    """Check a fraction held out for validation, which may be 0 unless it is needed. Raises `DataError`."""
    if not 0 <= fraction < 1 or (needed and not fraction):
        bound = "above" if needed else "at least"
        raise DataError(f"val_fraction must be {bound} 0 and below 1, not {fraction}.")


def choose_validation(keys: Sequence[int], sizes: Sequence[int], fraction: float) -> NDArray[numpy.uint8]:
    """Choose records for evaluation that have about a fraction of the whole.

    Args:
        keys: A number of each record, the same for the same content; small ones come first.
        sizes: How large each record is.
        fraction: From 0 to below 1; if it is above 0, one record at least is chosen and one is not.

    Returns:
        `TRAIN` or `VAL` of each record.

    Raises:
        DataError: There is only one content, and it would have to be in both parts.
    """
    parts = numpy.full(len(keys), TRAIN, dtype=numpy.uint8)
    if not fraction:
        return parts
    amounts: dict[int, int] = {}
    for key, size in zip(keys, sizes, strict=True):
        amounts[key] = amounts.get(key, 0) + size
    if len(amounts) < 2:
        raise DataError(
            f"A split needs two different documents at least, not {len(amounts)}: give more, let every paragraph or "
            "line of a text be one (documents), or evaluate on none (val_fraction=0)."
        )
    wanted = fraction * sum(sizes)
    chosen: set[int] = set()
    amount = 0.0
    for key in sorted(amounts)[:-1]:
        if amount + amounts[key] <= _TOLERANCE * wanted:  # else a long document would take the place of many
            chosen.add(key)
            amount += amounts[key]
    if not chosen:
        chosen = {min(amounts, key=lambda key: (amounts[key], key))}
    parts[[key in chosen for key in keys]] = VAL
    return parts


def _by_file(keys: Sequence[int], inside: Sequence[bool]) -> NDArray[numpy.uint8]:
    val = {key for key, is_inside in zip(keys, inside, strict=True) if is_inside}
    return numpy.array(
        [VAL if is_inside else LEFT_OUT if key in val else TRAIN for key, is_inside in zip(keys, inside, strict=True)],
        dtype=numpy.uint8,
    )


def _matching(files: Sequence[str], wanted: str | Sequence[str] | None) -> set[int]:
    """Return the numbers of the files that names or patterns mean."""
    if wanted is None:
        return set()
    found: set[int] = set()
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        matches = {number for number, file in enumerate(files) if _matches(file, str(pattern))}
        if not matches:
            raise DataError(f"val_files: no file matches {str(pattern)!r}. Available: {listing(files)}.")
        found |= matches
    if len(found) == len(files):
        raise DataError("val_files means all files, so that nothing is left to train on.")
    return found


def _matches(file: str, pattern: str) -> bool:
    return fnmatch(file, pattern) or fnmatch(file.rpartition("/")[2], pattern)
