"""The part of a tensor that one process has of a tensor that is split over several."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_split(value: object) -> TypeGuard[DTensor]:
    """Return whether a value is a tensor that is split over processes; none exists before its module is imported."""
    cls = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)  # which is slow to import
    return cls is not None and isinstance(value, cls)


def local_part(tensor: DTensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return this process's part of a tensor, and where it begins. Raises `TypeError` for sums that are not formed."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    local = local_values(tensor).detach()
    if any(placement.is_partial() for placement in tensor.placements) or local.shape != torch.Size(shape):
        raise TypeError(f"A tensor that is placed as {tensor.placements} cannot be saved.")
    return local, tuple(offset)


def local_values(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor, which may be all of it."""
    return tensor.to_local() if is_split(tensor) else tensor


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor fills a piece of memory without gaps or overlaps, in any order of its dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def smallest_of_all(number: int) -> int:
    """Return the smallest of the numbers that all processes of the group call this with."""
    found = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found.item())


def part_of(whole: Tensor, like: DTensor) -> DTensor:
    """Return a whole tensor, which every process has, split over processes as ``like``; without communication."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    part = whole.detach()
    for dim, (start, length) in enumerate(zip(offset, shape, strict=True)):
        part = part.narrow(dim, min(start, part.shape[dim]), length)
    local = part.to(like.device, copy=True).contiguous()
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
