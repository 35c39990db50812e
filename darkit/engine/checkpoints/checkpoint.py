"""Writing and reading checkpoint files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import torch

from darkit.engine.checkpoints.archive import write_archive
from darkit.engine.checkpoints.hashed import hashed
from darkit.engine.checkpoints.savable import refuse_unreadable
from darkit.engine.checkpoints.snapshot import with_arrays
from darkit.engine.steps.loss import is_out_of_memory
from darkit.errors import CheckpointCorruptError, CheckpointNotFoundError, OutOfMemoryError, StorageError
from darkit.runs import files
from darkit.runs.checkpoints import (
    Checkpoint,
    candidates,
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    manifest_path,
    tell_skipped,
)
from darkit.runs.safe import UnreadableError, open_regular
from darkit.runs.verify import error_of_machine, find_damage, find_form_problem

logger = logging.getLogger(__name__)
_ATTEMPTS = 100  # to read the latest checkpoint while a training deletes old ones


def write_checkpoint(
    folder: Path,
    step: int,
    content: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    run_id: str,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint and then its manifest, each atomically.

    Args:
        folder: The run directory.
        step: Completed optimizer steps.
        content: What `torch.load` returns; at least ``state_dict``, ``model_class`` and ``current_step``.
        metrics: The values logged at this step.
        run_id: The run's id.
        check: Called between the two files; if it raises, no manifest is written.

    Returns:
        The checkpoint file.

    Raises:
        StorageError: The file system failed; existing files are intact.
    """
    path = checkpoint_path(folder, step)
    write_file(path, content, {"step": step, "metrics": dict(metrics), "run_id": run_id}, check)
    return path


def write_file(
    path: Path, content: Mapping[str, Any], facts: Mapping[str, Any], check: Callable[[], None] = lambda: None
) -> None:
    """Write a file for `torch.load` and, once it is durable, its manifest.

    Args:
        path: The file.
        content: Its content.
        facts: Further entries of the manifest, beside size, sha256 and time.
        check: As in `write_checkpoint`.

    Raises:
        CheckpointUnreadableError: The content is not readable with ``torch.load(weights_only=True)``.
        StorageError: The file system failed; existing files are intact.
    """
    refuse_unreadable(dict(content))
    manifest_file = manifest_path(path)
    # the old manifest must never describe the new file
    size, sha256 = write_archive(path, content, stale=manifest_file)
    manifest = {"size": size, "sha256": sha256, **facts, "time": time.time()}
    check()
    files.write_json(manifest_file, manifest)


def read_checkpoint(checkpoint: Checkpoint, device: Any = "cpu") -> dict[str, Any]:
    """Verify a checkpoint against its manifest, if it has one, and read it: a thread hashes while this one reads.

    Args:
        checkpoint: The checkpoint.
        device: The device of its tensors; ``map_location`` of `torch.load`.

    Raises:
        CheckpointCorruptError: The file does not match its manifest, or is not a checkpoint.
        OutOfMemoryError: There is too little memory for it.
        StorageError: The machine refuses to read it, and says nothing about its content.
    """
    try:
        return _read_checkpoint(checkpoint, device)
    except Exception as error:
        if (cause := error_of_machine(error)) is None:
            raise
        raise StorageError(cause.errno, _not_now(checkpoint, str(cause.strerror))) from error


def _read_checkpoint(checkpoint: Checkpoint, device: Any) -> dict[str, Any]:
    if problem := find_form_problem(checkpoint, raises=True):
        raise _damaged(checkpoint, find_damage(checkpoint, raises=True) or problem)
    try:
        content, problem = _read_folder(checkpoint, device) if checkpoint.is_folder else _read_file(checkpoint, device)
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or error_of_machine(error) is not None:
            raise
        if problem := find_damage(checkpoint, raises=True):
            raise _damaged(checkpoint, problem) from error
        if is_out_of_memory(error):
            raise OutOfMemoryError(_not_now(checkpoint, "not enough memory")) from error
        if isinstance(error, CheckpointCorruptError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} cannot be read: {reason}") from error
    if problem:
        raise _damaged(checkpoint, problem)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointCorruptError(f"{checkpoint.path} is not a checkpoint: it has no 'state_dict'.")
    try:
        return with_arrays(content)
    except (LookupError, TypeError) as error:
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} misplaces a NumPy array: {error}.") from error


def _read_file(checkpoint: Checkpoint, device: Any) -> tuple[Any, str]:
    """Return the content of a file, and how its bytes differ from its manifest."""
    if not checkpoint.sha256:
        content = torch.load(checkpoint.path, map_location=device, weights_only=True)
        return content, find_damage(checkpoint, raises=True)
    with hashed(checkpoint.path) as file:
        content = torch.load(cast(IO[bytes], file), map_location=device, weights_only=True)
        return content, find_damage(checkpoint, lambda path: file.sha256(), raises=True)


def _read_folder(checkpoint: Checkpoint, device: Any) -> tuple[Any, str]:
    """Return the content of a folder, and how its files differ from its manifest."""
    from darkit.engine.checkpoints.sharded_reader import read_sharded  # slow to load, and most are files

    with ThreadPoolExecutor(1, thread_name_prefix="darkit-verify") as threads:
        damage = threads.submit(find_damage, checkpoint, raises=True)
        return read_sharded(checkpoint, device), damage.result()


def _damaged(checkpoint: Checkpoint, problem: str) -> CheckpointCorruptError:
    return CheckpointCorruptError(f"The checkpoint {checkpoint.path} is damaged: {problem}.")


def _not_now(checkpoint: Checkpoint, reason: str) -> str:
    return (
        f"The checkpoint {checkpoint.path} may be intact, but this machine cannot read it now: {reason}. Try again, or "
        "name another checkpoint."
    )


def read_run_checkpoint(folder: Path, wanted: str | int | None = None) -> tuple[Checkpoint, dict[str, Any]]:
    """Find and read a checkpoint of a run.

    Args:
        folder: The run directory.
        wanted: As for `darkit.runs.checkpoints.find_checkpoint`. If the latest is wanted and damaged, the one before is
            used, with a warning. If a training deletes or replaces it in the meantime, the search starts again.

    Raises:
        CheckpointNotFoundError: The run has no checkpoint, or none of that name.
        CheckpointCorruptError: The named checkpoint is damaged, or all of them are.
        OutOfMemoryError: As `read_checkpoint`; another checkpoint is not used then.
        StorageError: Likewise.
    """
    if wanted not in (None, "latest"):
        checkpoint = find_checkpoint(folder, wanted)
        while True:
            try:
                return checkpoint, read_checkpoint(checkpoint)
            except CheckpointCorruptError as error:
                before = checkpoint
                if not before.path.exists():
                    raise CheckpointNotFoundError(
                        f"The checkpoint {before.name} of the run {folder.name!r} was deleted while it was read."
                    ) from error
                checkpoint = find_checkpoint(folder, wanted)
                if (checkpoint.size, checkpoint.sha256) == (before.size, before.sha256):
                    raise  # otherwise a training has just taken the optimizer's state out of it
    for _ in range(_ATTEMPTS):
        found = _read_latest(folder)
        if found is not None:
            return found
    raise CheckpointNotFoundError(
        f"The run {folder.name!r} deletes its checkpoints faster than they can be read; set keep_last=2, or name one."
    )


def _read_latest(folder: Path) -> tuple[Checkpoint, dict[str, Any]] | None:
    """Read the latest intact checkpoint; None if it was deleted in the meantime, as with keep_last=1."""
    _refuse_unknown(folder)
    skipped: list[tuple[Checkpoint, CheckpointCorruptError]] = []
    for checkpoint in candidates(folder):
        try:
            content = read_checkpoint(checkpoint)
        except CheckpointCorruptError as error:
            if not checkpoint.path.exists():
                return None
            skipped.append((checkpoint, error))
            continue
        for damaged, problem in skipped:
            tell_skipped(damaged, str(problem))
        if skipped:
            logger.warning("Using %s of run %r instead.", checkpoint.name, folder.name)
        return checkpoint, content
    if skipped:
        damage = skipped[-1][1]
        raise CheckpointCorruptError(f"No checkpoint of the run {folder.name!r} is intact. {damage}") from damage
    find_checkpoint(folder)  # raises CheckpointNotFoundError
    return None


def _refuse_unknown(folder: Path) -> None:
    """Refuse to pass over checkpoints that this machine cannot list, or whose manifest it cannot read, now.

    Raises:
        StorageError: It cannot.
    """
    with files.storage_errors(f"list the checkpoints in {folder}"), suppress(FileNotFoundError, NotADirectoryError):
        os.scandir(folder).close()
    for checkpoint in list_checkpoints(folder)[::-1]:
        if checkpoint.verified:
            return
        try:
            with open_regular(manifest_path(checkpoint.path)):
                pass
        except FileNotFoundError:
            continue
        except UnreadableError as error:
            if (cause := error_of_machine(error)) is not None:
                raise StorageError(cause.errno, _not_now(checkpoint, f"its manifest, {cause.strerror}")) from error
