"""Reading checkpoints of which every process wrote its own part: whole, in one process, without a process group."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.storage import StorageReader

from darkit.engine.checkpoints.shards import put
from darkit.errors import CheckpointCorruptError
from darkit.runs import sharded
from darkit.runs.checkpoints import Checkpoint
from darkit.runs.safe import UnreadableError, read_object

_MOST_PARTS = 2**20  # of one tensor


def read_sharded(checkpoint: Checkpoint, device: Any = "cpu") -> Any:
    """Read a checkpoint that is a folder, with every tensor whole; its bytes were compared with its manifest.

    The content is that of a checkpoint file. No pickle is read but by ``torch.load(weights_only=True)``, and no tensor
    is made that the parts in the files do not fill.

    Args:
        checkpoint: The checkpoint.
        device: The device of its tensors.

    Raises:
        CheckpointCorruptError: The index and the files do not fit.
    """
    folder = checkpoint.path
    try:
        index = read_object(folder / sharded.INDEX, sharded.LONGEST_INDEX)
        content = torch.load(folder / sharded.STATE, map_location=device, weights_only=True)
        reader = _Reader(folder, index, checkpoint.size)
        wholes = {name: torch.empty(shape, dtype=dtype, device=device) for name, (shape, dtype) in reader.forms.items()}
        if wholes:
            with warnings.catch_warnings():  # one process is meant
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                load(dict(wholes), storage_reader=reader, no_dist=True)
        for name, path in reader.paths.items():
            put(content, tuple(path), wholes[name])
    except (UnreadableError, OSError, LookupError, TypeError, ValueError, RuntimeError, CheckpointException) as error:
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise CheckpointCorruptError(f"The checkpoint {folder} cannot be read: {reason}.") from error
    return content


class _Reader(StorageReader):
    """The parts of tensors in the files of a folder.

    Args:
        folder: The folder.
        index: The content of its index.
        size: Size in bytes of all its files; larger tensors are refused.

    Attributes:
        forms: Shape and dtype of each whole tensor, by a name.
        paths: Where each belongs in the state.

    Raises:
        ValueError: The index is not valid, or parts of a tensor are missing.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], size: int) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._places: dict[tuple[str, tuple[int, ...]], tuple[str, int]] = {}
        self._about: dict[str, Any] = {}
        self.forms: dict[str, tuple[list[int], torch.dtype]] = {}
        self.paths: dict[str, list[Any]] = {}
        entries = index.get("tensors")
        if not isinstance(entries, list):
            raise ValueError("its index lists no tensors")
        for number, entry in enumerate(entries):
            self._add(str(number), entry)
        total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.forms.values())
        if total > size:
            raise ValueError("its index lists larger tensors than its files hold")

    def _add(self, name: str, entry: Any) -> None:
        known: dict[str, Any] = entry if isinstance(entry, dict) else {}
        found: list[Any] = [known.get(key) for key in ("path", "dtype", "shape", "parts")]
        path, kind, shape, parts = found
        dtype = getattr(torch, kind, None) if isinstance(kind, str) else None
        sound = isinstance(path, list) and path and all(isinstance(key, str | int) for key in path)
        if not sound or not isinstance(dtype, torch.dtype) or not _is_size(shape) or not isinstance(parts, list):
            raise ValueError("its index has an entry that does not describe a tensor")
        chunks: list[tuple[list[int], list[int]]] = []
        for part in parts:
            file, key, offset, sizes = part
            if not (_is_size(offset) and _is_size(sizes) and len(offset) == len(sizes) == len(shape)):
                raise ValueError("its index has a part that does not fit its tensor")
            chunks.append((offset, sizes))
            self._places[name, tuple(offset)] = (str(file), key)
        _refuse_gaps(path, shape, chunks)
        self.paths[name], self.forms[name] = path, (shape, dtype)
        metadata = [ChunkStorageMetadata(torch.Size(offset), torch.Size(sizes)) for offset, sizes in chunks]
        self._about[name] = TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(shape), metadata)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False

    def read_metadata(self, *arguments: Any, **settings: Any) -> Metadata:
        return Metadata(self._about)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *arguments: Any, **settings: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:  # type: ignore[override]
        """Copy the parts into the tensors that the planner gives."""
        for item in plan.items:
            index: MetadataIndex = item.storage_index
            part = self._part(index.fqn, tuple(index.offset or ()))
            for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                part = part.narrow(dim, start, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(part)
            planner.commit_tensor(item, target)
        future: torch.futures.Future[None] = torch.futures.Future()
        future.set_result(None)
        return cast("Future[None]", future)

    def _part(self, name: str, offset: tuple[int, ...]) -> Tensor:
        """Return one part, from a file that is mapped into memory rather than read."""
        file, key = self._places[name, offset]
        if file not in self._files:
            if file != sharded.shard_name(int(file.removeprefix("shard-").removesuffix(".pth"))):
                raise ValueError(f"its index names a file {file!r}")
            path = self._folder / file
            if path.is_symlink():
                raise ValueError(f"its file {file} is a link")
            self._files[file] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found = self._files[file][key]
        chunk = next(chunk for chunk in self._about[name].chunks if tuple(chunk.offsets) == offset)
        if not isinstance(found, Tensor) or found.shape != chunk.sizes or found.dtype != self.forms[name][1]:
            raise ValueError(f"its file {file} does not hold what its index says")
        return found


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _refuse_gaps(path: list[Any], shape: list[int], chunks: list[tuple[list[int], list[int]]]) -> None:
    """Refuse parts that do not fill a tensor exactly: what is missing would be whatever was in memory."""
    inside = all(
        start + length <= most
        for offset, sizes in chunks
        for start, length, most in zip(offset, sizes, shape, strict=True)
    )
    filled = sum(math.prod(sizes) for _, sizes in chunks) == math.prod(shape)
    ordered = sorted(chunks)
    close = combinations(ordered, 2) if len(shape) > 1 and len(chunks) < 100 else pairwise(ordered)
    overlap = any(all(a < b + m and b < a + n for a, n, b, m in zip(*one, *other, strict=True)) for one, other in close)
    if not inside or not filled or overlap or len(chunks) > _MOST_PARTS:
        raise ValueError(f"its parts do not make up the tensor {'.'.join(map(str, path))}")
