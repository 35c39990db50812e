"""Reading checkpoints of which every process wrote its own part: whole, in one process, without a process group."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
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
from darkit.runs import files, sharded
from darkit.runs.checkpoints import Checkpoint, manifest_path
from darkit.runs.safe import UnreadableError, open_regular, read_object


def read_sharded(checkpoint: Checkpoint, device: Any = "cpu") -> Any:
    """Read a checkpoint that is a folder, with every tensor whole; its bytes were compared with its manifest.

    The content is that of a checkpoint file. No pickle is read but by ``torch.load(weights_only=True)``, and no tensor
    is made that the parts in the files do not fill. Files that the manifest does not list are never opened.

    Args:
        checkpoint: The checkpoint.
        device: The device of its tensors.

    Raises:
        CheckpointCorruptError: The index and the files do not fit.
    """
    folder = checkpoint.path
    try:
        shards = sharded.list_shards(files.read_json(manifest_path(folder)), checkpoint.sha256)
        index = read_object(folder / sharded.INDEX, sharded.LONGEST_INDEX)
        reader = _Reader(folder, index, shards, checkpoint.size)
        with _checked(folder / sharded.STATE) as name:
            content = torch.load(name, map_location=device, weights_only=True)
        wholes = {name: torch.zeros(shape, dtype=dtype, device=device) for name, (shape, dtype) in reader.forms.items()}
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


@dataclass(frozen=True)
class _Place:
    """Where a part is: a file and the key in it; and its size in each dimension."""

    file: str
    key: Any
    sizes: list[int]


class _Reader(StorageReader):
    """The parts of tensors in the files of a folder.

    Args:
        folder: The folder.
        index: The content of its index.
        shards: The names of the files with parts that its manifest lists; no others are opened.
        size: Size in bytes of all its files; larger tensors are refused.

    Attributes:
        forms: Shape and dtype of each whole tensor, by a name.
        paths: Where each belongs in the state.

    Raises:
        ValueError: The index is not valid, or parts of a tensor are missing.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], shards: Collection[str], size: int) -> None:
        self._folder = folder
        self._shards = frozenset(shards)
        self._files: dict[str, Any] = {}
        self._places: dict[tuple[str, tuple[int, ...]], _Place] = {}
        self._about: dict[str, Any] = {}
        self.forms: dict[str, tuple[list[int], torch.dtype]] = {}
        self.paths: dict[str, list[Any]] = {}
        entries = index.get("tensors")
        if not isinstance(entries, list):
            raise ValueError("its index lists no tensors")
        if _count_parts(entries) > sharded.MOST_PARTS:
            raise ValueError(f"its index lists more than {sharded.MOST_PARTS:,} parts")
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
            if file not in self._shards:
                raise ValueError(f"its index names a file {str(file)[:40]!r}, which its manifest does not list")
            chunks.append((offset, sizes))
            self._places[name, tuple(offset)] = _Place(file, key, sizes)
        if not _is_filled(shape, chunks):
            raise ValueError(f"its parts do not make up the tensor {'.'.join(map(str, path))}")
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
        place = self._places[name, offset]
        if place.file not in self._files:
            with _checked(self._folder / place.file) as file:
                self._files[place.file] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        found = self._files[place.file][place.key]
        if not isinstance(found, Tensor) or list(found.shape) != place.sizes or found.dtype != self.forms[name][1]:
            raise ValueError(f"its file {place.file} does not hold what its index says")
        return found


@contextmanager
def _checked(path: Path) -> Iterator[str]:
    """Yield a name for torch to open a file by, which is a regular one: on Linux, of the very file that was checked.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is a link, a pipe or a device.
    """
    with open_regular(path) as descriptor:
        opened = Path(f"/proc/self/fd/{descriptor}")
        yield str(opened if opened.exists() else path)


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _count_parts(entries: list[Any]) -> int:
    """Return the number of entries and of all their parts together."""
    listed = (entry.get("parts") for entry in entries if isinstance(entry, dict))
    return len(entries) + sum(len(parts) for parts in listed if isinstance(parts, list))


def _is_filled(shape: list[int], chunks: list[tuple[list[int], list[int]]]) -> bool:
    """Return whether parts fill a tensor, each element once. They must be the cells of a grid, as those of a mesh are.

    That is exact: where the segments of each dimension follow each other from its beginning to its end, and there are
    as many different parts as the grid has cells, each cell is one of them.
    """
    segments = [{(offset[dim], sizes[dim]) for offset, sizes in chunks} for dim in range(len(shape))]
    for found, most in zip(segments, shape, strict=True):
        end = 0
        for start, length in sorted(found):
            if start != end or not length:
                return False
            end += length
        if end != most:
            return False
    different = {tuple(offset) for offset, _ in chunks}
    return len(different) == len(chunks) == math.prod(map(len, segments))
