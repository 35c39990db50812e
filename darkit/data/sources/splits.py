"""Splits into training and validation records, never with the same content in both."""

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
_TOLERANCE = 1.02  # the validation part may be larger than requested by this factor


@dataclass(frozen=True)
class Split:
    """The part of each record of a source.

    Attributes:
        parts: `TRAIN`, `VAL` or `LEFT_OUT` of each record, in the source's order (records).
        fingerprint: A sha256 over the source and the parts.
        how: The settings of the split, as plain values.
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
        """The facts of the split for ``run.json``."""
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
    """Split the records of a source, which is read once.

    By fraction, records with the same content go to the same part. By file, records outside of the validation files
    whose content is also in these files are left out.

    Args:
        source: At least two records of different content.
        val_fraction: Fraction of the characters held out for validation; 0 holds out none.
        val_files: Names or patterns of the validation files instead; patterns match the path or the name.
        seed: Seed of the split by fraction.
        by: The fields that count as content: with the text alone, the same text with two labels is one content. None
            takes all fields.

    Raises:
        DataError: There are no records, the fraction is out of range, no file or all files match, or there is too
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
        raise DataError("The split leaves no training data.")
    digest = hashlib.sha256(source.fingerprint().encode() + parts.tobytes())
    return Split(parts, digest.hexdigest(), how)


def check_val_fraction(fraction: float, *, needed: bool = False) -> None:
    """Check a fraction held out for validation, which may be 0 unless it is needed. Raises `DataError`."""
    if not 0 <= fraction < 1 or (needed and not fraction):
        bound = "above" if needed else "at least"
        raise DataError(f"val_fraction must be {bound} 0 and below 1, not {fraction}.")


def choose_validation(keys: Sequence[int], sizes: Sequence[int], fraction: float) -> NDArray[numpy.uint8]:
    """Choose validation records with about a fraction of the total size.

    Args:
        keys: A hash of each record's content; the smallest are chosen first.
        sizes: The size of each record.
        fraction: From 0 to below 1; above 0, at least one record is chosen and one is not.

    Returns:
        `TRAIN` or `VAL` of each record.

    Raises:
        DataError: All records have the same content.
    """
    parts = numpy.full(len(keys), TRAIN, dtype=numpy.uint8)
    if not fraction:
        return parts
    amounts: dict[int, int] = {}
    for key, size in zip(keys, sizes, strict=True):
        amounts[key] = amounts.get(key, 0) + size
    if len(amounts) < 2:
        raise DataError(
            f"A split needs two different documents at least, not {len(amounts)}. Give more, split texts into "
            "paragraphs or lines (documents=line), or hold out none (val_fraction=0)."
        )
    wanted = fraction * sum(sizes)
    chosen: set[int] = set()
    amount = 0.0
    for key in sorted(amounts)[:-1]:
        if amount + amounts[key] <= _TOLERANCE * wanted:  # skip long documents in favour of many shorter ones
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
    """Return the indices of the files that match names or patterns."""
    if wanted is None:
        return set()
    found: set[int] = set()
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        places = ((file, file.rpartition("/")[2]) for file in files)
        matches = {number for number, names in enumerate(places) if any(fnmatch(name, str(pattern)) for name in names)}
        if not matches:
            raise DataError(f"val_files: no file matches {str(pattern)!r}. Available: {listing(files)}.")
        found |= matches
    if len(found) == len(files):
        raise DataError("val_files matches all files, which leaves no training data.")
    return found
