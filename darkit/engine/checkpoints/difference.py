"""Comparison of two runs of the same config, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.data.fingerprint import dense_parts
from darkit.runs import Run

IGNORED_COLUMNS = ("time",)  # log columns that differ between any two runs


def first_difference(one: Run, other: Run, batches_of_one: Path, batches_of_other: Path) -> str:
    """Compare batches, logs and common checkpoints; return the first difference, or an empty string."""
    return (
        _difference_of_batches(batches_of_one, batches_of_other)
        or _difference_of_logs(one, other)
        or _difference_of_checkpoints(one, other)
    )


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield path and largest absolute deviation for each difference of two nested states.

    Differences of text, shape or missing entries are infinite.
    """
    if isinstance(one, numpy.ndarray) and isinstance(other, numpy.ndarray):
        one, other = torch.from_numpy(one), torch.from_numpy(other)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
            yield path, torch.inf
        elif one.layout is not torch.strided:
            yield from differences(dense_parts(one), dense_parts(other), path)
        elif not _same_bits(one, other):
            deviation = (one.double() - other.double()).abs()
            yield path, float(deviation.nan_to_num(torch.inf, torch.inf).max())
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**one, **other}:
            here = f"{path}.{key}" if path else str(key)
            if key in one and key in other:
                yield from differences(one[key], other[key], here)
            else:
                yield here, torch.inf
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}[{index}]")
    elif isinstance(one, float) and isinstance(other, float):
        if one != other and not (one != one and other != other):
            apart = abs(one - other)
            yield path, apart if apart == apart else torch.inf
    elif type(one) is not type(other) or one != other:
        yield path, torch.inf


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(*(tensor.reshape(-1).contiguous().view(torch.uint8) for tensor in (one, other)))


def _difference_of_batches(one: Path, other: Path) -> str:
    expected, seen = _read_batches(one), _read_batches(other)
    for place in sorted({*expected, *seen}):
        if len(expected.get(place, set()) | seen.get(place, set())) > 1 or place not in seen or place not in expected:
            return f"batch {place[1]} of epoch {place[0]} differs."
    return ""


def _read_batches(path: Path) -> dict[tuple[int, int], set[str]]:
    found: dict[tuple[int, int], set[str]] = {}
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # a killed process may leave a partial line
            epoch, number, digest = line.strip().split(",")
            found.setdefault((int(epoch), int(number)), set()).add(digest)
    return found


def _difference_of_logs(one: Run, other: Run) -> str:
    left, right = one.log(), other.log()
    columns = [column for column in left.columns if column not in IGNORED_COLUMNS]
    if left.height != right.height or set(left.columns) != set(right.columns):
        return f"the logs have {left.height} and {right.height} rows of {left.columns} and {right.columns}."
    for row_of_one, row_of_other in zip(left.to_dicts(), right.to_dicts(), strict=True):
        for column in columns:
            mine, theirs = row_of_one[column], row_of_other[column]
            if mine != theirs and not (mine != mine and theirs != theirs):
                return f"the log at step {row_of_one.get('step')}, column {column}: {mine} and {theirs}."
    return ""


def _difference_of_checkpoints(one: Run, other: Run) -> str:
    twins = {checkpoint.step: checkpoint for checkpoint in other.checkpoints()}
    for checkpoint in one.checkpoints():
        if checkpoint.step not in twins:
            continue
        found = list(differences(read_checkpoint(checkpoint), read_checkpoint(twins[checkpoint.step])))
        if found:
            path, deviation = max(found, key=lambda item: item[1])
            return (
                f"the checkpoint of step {checkpoint.step} in {len(found)} places, first {found[0][0]}; the largest "
                f"deviation is {deviation:g}, in {path}."
            )
    if one.details.step not in twins:
        return f"the second run has no checkpoint of the last step, {one.details.step}."
    return ""
