"""Checkpoints of which every process writes its own part, through torch.distributed.checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult

from darkit.engine.checkpoints.archive import write_archive
from darkit.engine.checkpoints.digest import DigestedFile
from darkit.engine.checkpoints.savable import refuse_unreadable
from darkit.engine.checkpoints.shards import Split
from darkit.errors import CheckpointUnreadableError, DarkitError, StorageError
from darkit.runs import files, sharded
from darkit.runs.checkpoints import folder_path, manifest_path
from darkit.runs.files import open_atomically


@dataclass(frozen=True)
class _Place:
    """Where a part was written: a file, its size and sha256, and the key of the part in it."""

    file: str
    size: int
    sha256: str
    key: int


def write_sharded(
    folder: Path,
    step: int,
    state: Split,
    *,
    metrics: Mapping[str, float],
    run_id: str,
    group: Any,
    token: str,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint with the other processes, each its own part. All of the group must call it, in any thread.

    The folder gets its name once all parts are durable, and the manifest is written last. Whatever fails, in whichever
    process, nothing is left but a folder with a temporary name.

    Args:
        folder: The run directory.
        step: Completed optimizer steps.
        state: The state; only that of the first process is used but for its shards.
        metrics: The values logged at this step.
        run_id: The run's id.
        group: A process group of CPU collectives that nothing else uses.
        token: The end of the temporary name, the same in every process.
        check: Called in the first process before anything replaces a file; if it raises, no checkpoint is made.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointUnreadableError: The state is not readable with ``torch.load(weights_only=True)``.
        StorageError: The file system failed in one of the processes, or one of them is gone.
    """
    facts = {"step": step, "metrics": dict(metrics), "run_id": run_id}
    writer = _Writer(folder_path(folder, step), token, state, facts, check)
    try:
        save(dict(state.shards), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        failures = {rank: failure for rank, (failure, _) in error.failures.items()}
        raise _failure(failures, dist.get_rank(group)) from error
    except RuntimeError as error:  # of the collectives
        raise StorageError(
            f"The checkpoint of step {step} was not completed, because another process is gone: {error}"
        ) from error
    finally:
        if not dist.get_rank(group):
            with suppress(OSError):  # what is left is removed when the run is resumed
                shutil.rmtree(writer.temporary)
    return writer.target


def _failure(failures: Mapping[int, BaseException], rank: int) -> BaseException:
    """Return the error to raise in a process for those of all."""
    first = failures.get(rank) or failures[min(failures)]
    if rank in failures or not isinstance(first, DarkitError):
        return first
    return StorageError(f"Process {min(failures)} could not write its part of the checkpoint: {first}")


class _Writer(StorageWriter):
    """One file of a process's parts and, in the first process, the files of the whole."""

    def __init__(
        self, target: Path, token: str, state: Split, facts: Mapping[str, Any], check: Callable[[], None]
    ) -> None:
        self.target = target
        self.temporary = sharded.temporary_folder(target, token)
        self._state = state
        self._facts = facts
        self._check = check
        self._rank = dist.get_rank()

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False

    def set_up_storage_writer(self, is_coordinator: bool, *arguments: Any, **settings: Any) -> None:
        """Make the temporary folder; the others write only after the first process has."""
        if is_coordinator:
            self._check()
            refuse_unreadable(self._state.rest)
            with files.storage_errors(f"write {self.target}"):
                shutil.rmtree(self.temporary, ignore_errors=True)
                self.temporary.mkdir()

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:  # type: ignore[override]
        """Write this process's parts, durably."""
        future: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        results: list[WriteResult] = []
        if plan.items:
            parts = {key: self._state.shards[item.index.fqn].local for key, item in enumerate(plan.items)}
            name = sharded.shard_name(self._rank)
            size, digest = write_archive(self.temporary / name, parts)
            for key, item in enumerate(plan.items):
                results.append(WriteResult(item.index, size, _Place(name, size, digest, key)))
        future.set_result(results)
        return cast("Future[list[WriteResult]]", future)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write what is not split and the index, give the folder its name, and write the manifest."""
        written = [result for of_rank in results for result in of_rank]
        parts = {result.storage_data.file: (result.storage_data.size, result.storage_data.sha256) for result in written}
        index = self._index(metadata, written)
        parts[sharded.STATE] = write_archive(self.temporary / sharded.STATE, self._state.rest)
        parts[sharded.INDEX] = _write_index(self.temporary / sharded.INDEX, index)
        manifest = sharded.make_manifest(parts, {**self._facts, "ranks": len(results), "time": time.time()})
        self._check()
        with files.storage_errors(f"write {self.target}"):
            manifest_file = manifest_path(self.target)
            if manifest_file.exists():  # the old manifest must never describe the new folder
                manifest_file.unlink()
                files.sync_folder(self.target.parent)
            if self.target.exists():
                sharded.remove_folder(self.target)
            self.temporary.replace(self.target)
            files.sync_folder(self.target.parent)
        self._check()
        files.write_json(manifest_file, manifest)

    def _index(self, metadata: Metadata, written: list[WriteResult]) -> dict[str, Any]:
        """Return where each part of each tensor is."""
        places = {(result.index.fqn, tuple(result.index.offset or ())): result.storage_data for result in written}
        tensors = []
        for name in self._state.shards:
            about = cast(TensorStorageMetadata, metadata.state_dict_metadata[name])
            parts = []
            for chunk in about.chunks:
                place = places[name, tuple(chunk.offsets)]
                parts.append([place.file, place.key, list(chunk.offsets), list(chunk.sizes)])
            dtype = str(about.properties.dtype).removeprefix("torch.")
            tensors.append({"path": json.loads(name), "dtype": dtype, "shape": list(about.size), "parts": parts})
        return {"tensors": tensors}


def _write_index(path: Path, index: Mapping[str, Any]) -> tuple[int, str]:
    """Write the index durably; return its size and sha256. Raises `CheckpointUnreadableError` if it is too large."""
    written = json.dumps(index, separators=(",", ":")).encode()
    parts = len(index["tensors"]) + sum(len(entry["parts"]) for entry in index["tensors"])
    if parts > sharded.MOST_PARTS or len(written) > sharded.LONGEST_INDEX:
        raise CheckpointUnreadableError(
            f"The checkpoint would have {parts:,} parts of tensors, more than can be read again: split the model over "
            "fewer processes."
        )
    with open_atomically(path) as file, DigestedFile(file) as digested:
        digested.write(written)
        sha256 = digested.finish()
    return digested.size, sha256
