"""Averages over several processes of what each has to log: in blocks of rows, by two messages a block."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from darkit.engine.device import widest_float
from darkit.engine.metrics.denominators import Weight
from darkit.engine.metrics.means import COUNT

Own = Mapping[str, tuple[Any, Weight]]
"""Values of one process by name, each with its weight in the mean."""


class RowBlock:
    """Rows of the log that wait until the processes have averaged their values.

    All processes add the same steps, and call `exchange` after the same step.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[dict[str, Any], Own, Callable[[dict[str, Any]], None]]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, step: int) -> bool:
        return step in self._rows

    def add(self, step: int, row: dict[str, Any], own: Own, put: Callable[[dict[str, Any]], None]) -> None:
        """Add the row of a step; ``put`` gets it once the values in ``own`` are averaged."""
        self._rows[step] = (row, own, put)

    def exchange(self, device: torch.device) -> None:
        """Average the values over the processes and pass the rows on, in order."""
        rows, self._rows = self._rows, {}
        found = averaged({step: own for step, (_, own, _) in rows.items()}, device)
        for step, (row, _, put) in rows.items():
            put(row | found[step])

    def give_up(self) -> int:
        """Pass the rows on with the values of this process alone; return how many have any."""
        rows, self._rows = self._rows, {}
        for row, own, put in rows.values():
            put(row | {name: value for name, (value, _) in own.items()})
        return sum(bool(own) for _, own, _ in rows.values())


def averaged(rows: Mapping[int, Own], device: torch.device) -> dict[int, dict[str, Any]]:
    """Average values of steps over the processes; for ``count`` return the sum. All must call it.

    A value is averaged over the processes that have it. On an accelerator the results are tensors there, and nothing
    waits for the values.
    """
    layout = {step: sorted(row) for step, row in rows.items()}
    digest = zlib.crc32(repr(layout).encode())
    lead = torch.tensor([digest, -digest], dtype=torch.int64, device=device)
    torch.distributed.all_reduce(lead, torch.distributed.ReduceOp.MAX)
    most, least = lead.tolist()
    if most != -least:
        return _merged(rows)
    parts = [part for step, names in layout.items() for name in names for part in _sum(name, *rows[step][name])]
    if not parts:
        return {step: {} for step in rows}
    sums = _together(parts, device)
    torch.distributed.all_reduce(sums)
    found: Iterator[Any] = iter(sums.tolist() if device.type == "cpu" else sums.unbind())
    return {step: {name: _mean(name, next(found), next(found)) for name in names} for step, names in layout.items()}


def agreed(name: str, value: Any, own: tuple[Any, Weight] | None, device: torch.device) -> float | None:
    """Return one value of a step, the same in all processes, by one message. All must call it.

    Args:
        name: Its name.
        value: What this process has, or None.
        own: The value with its weight, if the training step returned it: then it is averaged over the processes that
            have it. Otherwise the first process's counts.
        device: Where the processes exchange it.

    Returns:
        The value; None if no process has one that counts.
    """
    nothing = (0.0, 0.0, 0.0, 0.0, 0.0)
    if own is not None:
        parts = (*_sum(name, *own), 1.0, 0.0, 0.0)
    elif value is not None and not torch.distributed.get_rank():
        parts = (0.0, 0.0, 0.0, value, 1.0)
    else:
        parts = nothing
    sums = _together(parts, device)
    torch.distributed.all_reduce(sums)
    total, weight, averaging, first, has_first = sums.tolist()
    if averaging:
        return float(_mean(name, total, weight))
    return first if has_first else None


def gathered(value: Any) -> list[Any]:
    """Return the values of all processes in the first one, in order; elsewhere only its own. All must call it.

    Sending every value to every process would cost the square of their number.
    """
    everyones: list[Any] | None = (
        [None] * torch.distributed.get_world_size() if not torch.distributed.get_rank() else None
    )
    torch.distributed.gather_object(value, everyones)
    return [value] if everyones is None else everyones


def _merged(rows: Mapping[int, Own]) -> dict[int, dict[str, Any]]:
    """Average values of which the processes have different ones."""
    mine = {
        step: {name: [float(part) for part in _sum(name, *pair)] for name, pair in row.items()}
        for step, row in rows.items()
    }
    everyones: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyones, mine)
    found: dict[int, dict[str, Any]] = {}
    for step in rows:
        pairs: dict[str, list[list[float]]] = {}
        for one in everyones:
            for name, pair in one.get(step, {}).items():
                pairs.setdefault(name, []).append(pair)
        found[step] = {name: _mean(name, *map(sum, zip(*some, strict=True))) for name, some in pairs.items()}
    return found


def _sum(name: str, value: Any, weight: Weight) -> tuple[Any, Any]:
    """Return a value times its weight, and the weight; nothing for a mean over no items."""
    if isinstance(value, Tensor) and value.device.type == "cpu":
        value = value.item()  # in double precision
    if name == COUNT:
        return value, 1.0
    if isinstance(weight, Tensor):
        return torch.where(weight > 0, torch.as_tensor(value).to(weight) * weight, torch.zeros_like(weight)), weight
    return (value * weight, weight) if weight else (0.0, 0.0)


def _mean(name: str, total: Any, weight: Any) -> Any:
    if name == COUNT:
        return total
    return total / weight if isinstance(weight, Tensor) or weight else math.nan


def _together(parts: Sequence[Any], device: torch.device) -> Tensor:
    wide = widest_float(device)
    if device.type == "cpu":
        return torch.tensor([float(part) for part in parts], dtype=wide)
    # filling a tensor on the device does not wait for it, unlike copying from the host
    return torch.stack(
        [
            part.detach().reshape(()).to(device, wide, non_blocking=True)
            if isinstance(part, Tensor)
            else torch.full((), float(part), dtype=wide, device=device)
            for part in parts
        ]
    )
