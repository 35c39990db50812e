"""The results of an evaluation over several processes: each has a part of the data, or all of it, and all get the same.

Which it is, is known if darkit divided the data. Otherwise the first batches are compared: if they are equal in all
processes, so is the data, and the first process's results count; else the processes have different data.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from darkit.engine.metrics.means import Means
from darkit.errors import LossError

_COMPARED = 8  # batches
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
_SENT = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, *_FLOATS)  # by gloo and nccl
_MOST_BYTES = 1 << 16  # of a tensor


class Merging:
    """Merge the results of one evaluation; all processes must make the same calls.

    Args:
        divided: Whether each process evaluates other batches; None if it is not known.
    """

    def __init__(self, divided: bool | None) -> None:
        self.divided = divided
        self._digests: list[int] = []
        self._count = 0

    def note(self, batch: Any) -> None:
        """Note a batch, if it must be compared with those of the other processes."""
        self._count += 1
        if self.divided is None and len(self._digests) < _COMPARED:
            self._digests.append(_digest(batch))

    def merge(self, means: Means) -> dict[str, Tensor]:
        """Return the means and torchmetrics values over all processes, by name.

        Raises:
            LossError: Some processes have no torchmetrics object of a name.
        """
        mine = (means.on_host(), sorted(means.metrics), (self._count, self._digests))
        everyones = gather(mine)
        names = everyones[0][1]
        if self.divided is None:
            self.divided = any(other[2] != everyones[0][2] for other in everyones)
        if self.divided and any(other[1] != names for other in everyones):
            every = sorted({name for other in everyones for name in other[1]})
            raise LossError(
                f"Some processes evaluated no batch with the torchmetrics objects {', '.join(every)}: let the "
                "validation step return them for every batch."
            )
        if self.divided:
            return Means().merge([other[0] for other in everyones]).result() | means.compute_metrics()
        with apart(means.metrics):
            values = means.compute_metrics()
        if names:
            values = gather({name: value.cpu() for name, value in values.items()})[0]
        result: dict[str, Tensor] = everyones[0][0].result()
        return result | values

    def media(self, found: Mapping[str, tuple[int, Any]]) -> dict[str, Any]:
        """Return the first medium of each name over all processes.

        Args:
            found: Media of this process by name, each with the number of its batch.
        """
        everyones = gather({name: number for name, (number, _) in found.items()})
        names = {name for numbers in everyones for name in numbers}
        first = {
            name: min((numbers[name], rank) for rank, numbers in enumerate(everyones) if name in numbers)
            for name in names
        }
        mine = {name: found[name][1] for name, (_, rank) in first.items() if rank == torch.distributed.get_rank()}
        if all(rank == 0 for _, rank in first.values()):
            return mine
        return {name: value for media in gather(mine) for name, value in media.items()}


def gather(mine: Any) -> list[Any]:
    """Return an object of every process, in order."""
    everyones: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyones, mine)
    return everyones


@contextmanager
def apart(metrics: Mapping[str, Any]) -> Iterator[None]:
    """Keep torchmetrics objects from synchronising with other processes in a block."""
    parts = [part for metric in metrics.values() for part in metric.modules() if hasattr(part, "_to_sync")]
    before = [part._to_sync for part in parts]
    for part in parts:
        part._to_sync = False
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part._to_sync = value


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers, such as running statistics, which the checkpoints have."""
    for buffer in module.buffers():
        if type(buffer) is Tensor and buffer.layout is torch.strided:
            found = of_first(buffer)
            if found.data_ptr() != buffer.data_ptr():
                buffer.copy_(found)


@torch.no_grad()
def keep_from_ddp(module: nn.Module, device: torch.device) -> None:
    """Share what DDP cannot send, such as integers of 16 bits, once instead of it, before it wraps a module."""
    kept = {
        name: value
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if type(value) in (Tensor, nn.Parameter) and value.dtype not in _SENT
    }
    for value in kept.values():
        value.copy_(of_first(value.detach().to(device)))
    if kept:
        ddp: Any = DistributedDataParallel
        ddp._set_params_and_buffers_to_ignore_for_model(module, list(kept))


def of_first(value: Tensor) -> Tensor:
    """Return the first process's value of a dense tensor, in its own memory if it can. All processes must call it.

    It travels as bytes: gloo sends no integers of 16 bits, for example.
    """
    sent = value.detach().resolve_conj().resolve_neg().reshape(-1).contiguous()
    torch.distributed.broadcast(sent.view(torch.uint8), 0)
    return sent.view_as(value)


def _digest(batch: Any) -> int:
    """Return a number that tells batches with different content apart."""
    found = 0
    for part in _leaves(batch):
        if isinstance(part, Tensor) and part.layout is torch.strided:
            flat = part.detach().reshape(-1)[: _MOST_BYTES // max(1, part.element_size())]
            data = (
                str((part.dtype, tuple(part.shape))).encode()
                + flat.cpu().contiguous().view(torch.uint8).numpy().tobytes()
            )
        elif isinstance(part, numpy.ndarray):
            data = str((part.dtype, part.shape)).encode() + part.tobytes()[:_MOST_BYTES]
        else:
            data = (
                repr(part).encode()
                if isinstance(part, str | bytes | int | float | None)
                else type(part).__name__.encode()
            )
        found = zlib.crc32(data, found)
    return found


def _leaves(batch: Any) -> Iterator[Any]:
    if isinstance(batch, Mapping):
        for value in batch.values():
            yield from _leaves(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _leaves(value)
    elif hasattr(batch, "__dict__") and not isinstance(batch, Tensor) and not callable(batch):
        yield from _leaves(vars(batch))
    else:
        yield batch
