"""Checkpoint files: what is in them, how they are written, and how they are read back."""

from __future__ import annotations

import io
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from darkit.engine.checkpoints.digest import DigestedFile
from darkit.engine.checkpoints.snapshot import is_array_of_numbers, plain_number, with_arrays
from darkit.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointUnreadableError,
)
from darkit.runs import files
from darkit.runs.checkpoints import (
    Checkpoint,
    candidates,
    checkpoint_path,
    find_checkpoint,
    manifest_path,
    tell_skipped,
)
from darkit.runs.verify import find_greedy_globals, find_problem

logger = logging.getLogger(__name__)
_MOST_KEYS = 3
_LOOKS = 100  # how often the latest checkpoint is looked for beside a training that deletes it meanwhile
_WRAPPERS = ("_orig_mod.", "module.")  # torch.compile's, DataParallel's
_MAPPINGS = (dict, OrderedDict, Counter)
_READABLE = frozenset((type(None), bool, int, float, complex, str, bytes, Tensor, nn.Parameter))


def write_checkpoint(
    folder: Path,
    step: int,
    content: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    run_id: str,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Writes a checkpoint and then its manifest, each whole or not at all.

    Args:
        folder: The run directory.
        step: The step it is of.
        content: What `torch.load` gives back; ``state_dict``, ``model_class`` and ``current_step`` at least.
        metrics: The values logged at this step.
        run_id: The run's id.
        check: Called between the two; an error that it raises keeps the manifest from being written.

    Returns:
        The checkpoint file.

    Raises:
        StorageError: The file system refused; what was there before is whole.
    """
    path = checkpoint_path(folder, step)
    write_file(path, content, {"step": step, "metrics": dict(metrics), "run_id": run_id}, check)
    return path


def write_file(
    path: Path, content: Mapping[str, Any], facts: Mapping[str, Any], check: Callable[[], None] = lambda: None
) -> None:
    """Writes a file that `torch.load` reads and, once it is durable, its manifest beside it.

    Args:
        path: The file.
        content: What it holds.
        facts: What the manifest tells besides size, sha256 and time.
        check: As in `write_checkpoint`.

    Raises:
        CheckpointUnreadableError: It holds something that ``torch.load(weights_only=True)`` would refuse.
        StorageError: The file system refused; what was there before is whole.
    """
    _refuse_unreadable(dict(content))
    manifest_file = manifest_path(path)
    # what describes the old file must not tell of the new one for a moment
    with files.open_atomically(path, stale=manifest_file) as file, DigestedFile(file) as digested:
        try:
            torch.save(dict(content), cast(IO[bytes], digested))
        except Exception:
            if digested.error is not None:  # torch reports what the file system said as a failure of its own
                raise digested.error from None
            raise
        sha256 = digested.finish()
    manifest = {"size": digested.size, "sha256": sha256, **facts, "time": time.time()}
    check()
    files.write_json(manifest_file, manifest)


def check_savable(content: Mapping[str, Any]) -> None:
    """Looks for state that no checkpoint can hold, so that it is found before there is work to lose.

    What NumPy has counts as what it becomes in a `darkit.engine.checkpoints.snapshot.Snapshot`.

    Raises:
        CheckpointUnreadableError: There is some; the text names its place.
    """
    _refuse_unreadable(dict(content), numpy=True)


def _refuse_unreadable(value: Any, path: str = "", *, numpy: bool = False) -> None:
    """Looks for what ``torch.load(weights_only=True)`` would refuse. Raises `CheckpointUnreadableError`."""
    if numpy:
        value = plain_number(value)
    if type(value) in _MAPPINGS:
        for key, item in value.items():
            _refuse_unreadable(key, path, numpy=numpy)
            _refuse_unreadable(item, f"{path}.{key}" if path else str(key), numpy=numpy)
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _refuse_unreadable(item, f"{path}[{index}]", numpy=numpy)
    elif type(value) not in _READABLE and not (numpy and is_array_of_numbers(value)):
        refused = _needs(value)
        if refused:
            raise CheckpointUnreadableError(
                f"The checkpoint would not be readable again: {path} needs {refused}, and only tensors, numbers, text "
                "and containers of them are read, so that loading runs no code."
            )


def is_readable(value: Any) -> bool:
    """Says whether ``torch.load(weights_only=True)`` would read a value again."""
    try:
        _refuse_unreadable(value, numpy=True)
    except CheckpointUnreadableError:
        return False
    return True


def _needs(value: Any) -> str:
    """Names the code that would be needed to read a value."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
    except Exception as error:  # whatever an object's own way of being saved raises
        return f"an object that torch.save cannot write ({error})"
    buffer.seek(0)
    refused = torch.serialization.get_unsafe_globals_in_checkpoint(cast(Any, buffer))
    return ", ".join(sorted({*refused, *find_greedy_globals(buffer)}))


def read_checkpoint(checkpoint: Checkpoint, device: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint, having compared it with its manifest where it has one.

    Args:
        checkpoint: The checkpoint.
        device: Where its tensors go, as `torch.load` takes it.

    Raises:
        CheckpointCorruptError: The file is not what its manifest says, or is no checkpoint.
    """
    problem = find_problem(checkpoint)
    if problem:
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} is damaged: {problem}.")
    try:
        content = torch.load(checkpoint.path, map_location=device, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointCorruptError(f"The file {checkpoint.path} is no checkpoint: it holds no 'state_dict'.")
    try:
        return with_arrays(content)
    except (LookupError, TypeError) as error:
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} misplaces a NumPy array: {error}.") from error


def read_run_checkpoint(folder: Path, wanted: str | int | None = None) -> tuple[Checkpoint, dict[str, Any]]:
    """Reads the checkpoint of a run that is meant.

    Args:
        folder: The run directory.
        wanted: As `darkit.runs.checkpoints.find_checkpoint` takes it. Where the latest is meant and turns out to be
            damaged, the one before is taken, and it is logged what was skipped and what is used. One that a training
            has deleted meanwhile was not the latest: it is looked for again.

    Raises:
        CheckpointNotFoundError: There is none, or none of that name.
        CheckpointCorruptError: The one that was named, or every one, is damaged.
    """
    if wanted not in (None, "latest"):
        checkpoint = find_checkpoint(folder, wanted)
        try:
            return checkpoint, read_checkpoint(checkpoint)
        except CheckpointCorruptError as error:
            if checkpoint.path.exists():
                raise
            raise CheckpointNotFoundError(
                f"The checkpoint {checkpoint.name} of the run {folder.name!r} was deleted while it was read."
            ) from error
    for _ in range(_LOOKS):
        found = _read_latest(folder)
        if found is not None:
            return found
    raise CheckpointNotFoundError(
        f"The run {folder.name!r} deletes its checkpoints faster than one can be read; set keep_last=2, or name one."
    )


def _read_latest(folder: Path) -> tuple[Checkpoint, dict[str, Any]] | None:
    """Reads the highest step that can be trusted; None when it was deleted meanwhile, as keep_last=1 does."""
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
        raise CheckpointCorruptError(f"No checkpoint of the run {folder.name!r} can be trusted. {damage}") from damage
    find_checkpoint(folder)  # says that there is none
    return None


def load_weights(model: nn.Module, content: Mapping[str, Any], *, own_types: bool = True) -> None:
    """Loads a checkpoint's weights strictly.

    Args:
        model: The model; of one in a wrapper the bare module counts.
        content: The checkpoint's content.
        own_types: Whether the model keeps its types of floats; otherwise it takes those that were saved.

    Raises:
        CheckpointMismatchError: They are another model's; the text names both classes and the first differing keys.
    """
    model = bare(model)
    wanted, found = model.state_dict(), content["state_dict"]
    found = _without_wrapper(found, wanted)
    differing = [f"{key!r} is missing" for key in wanted if key not in found]
    differing += [f"{key!r} is too much" for key in found if key not in wanted]
    differing += [
        f"{key!r} has shape {tuple(found[key].shape)} where {tuple(value.shape)} fits"
        for key, value in wanted.items()
        if isinstance(found.get(key), Tensor) and _is_sized(value) and found[key].shape != value.shape
    ]
    if differing:
        more = f" and {len(differing) - _MOST_KEYS} more" if len(differing) > _MOST_KEYS else ""
        raise CheckpointMismatchError(
            f"The checkpoint of a {content.get('model_class', 'model of unknown class')} does not fit this "
            f"{class_path(type(model))}: {', '.join(differing[:_MOST_KEYS])}{more}."
        )
    if not own_types:
        _take_types(model, found)
    model.load_state_dict(found, strict=True)


def bare(model: nn.Module) -> nn.Module:
    """Returns the module inside the wrappers of ``torch.compile``, ``DataParallel`` and its distributed kind."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _without_wrapper(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Takes a wrapper's prefix off the keys of a checkpoint that was saved with it."""
    for prefix in _WRAPPERS:
        if found and all(key.startswith(prefix) for key in found) and not any(key.startswith(prefix) for key in wanted):
            return _without_wrapper({key.removeprefix(prefix): value for key, value in found.items()}, wanted)
    return found


def _is_sized(value: Any) -> bool:
    return isinstance(value, Tensor) and not is_lazy(value)


def _take_types(model: nn.Module, found: Mapping[str, Any]) -> None:
    """Gives a model the types of floats that its saved weights have; all of it, where they are of one type."""
    floats = {key: value.dtype for key, value in found.items() if _is_float(value)}
    kinds = set(floats.values())
    if len(kinds) == 1:
        model.to(kinds.pop())
        return
    parts = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for key, dtype in floats.items():
        if _is_float(parts.get(key)) and parts[key].dtype != dtype:
            parts[key].data = parts[key].data.to(dtype)


def _is_float(value: Any) -> bool:
    return _is_sized(value) and value.is_floating_point()


def class_path(cls: type) -> str:
    """Returns where a class can be imported from, such as ``darkit.models.gpt.GPT``."""
    return f"{cls.__module__}.{cls.__qualname__}"
