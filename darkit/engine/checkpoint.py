"""Checkpoint files: what is in them, how they are written, and how they are read back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from darkit.errors import CheckpointCorruptError, CheckpointMismatchError
from darkit.runs import files
from darkit.runs.checkpoints import Checkpoint, checkpoint_path, manifest_path

_MOST_KEYS = 3


class _Hashing:
    """A writable file that hashes what goes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def write_checkpoint(
    folder: Path, step: int, content: Mapping[str, Any], *, metrics: Mapping[str, float], run_id: str
) -> Path:
    """Writes a checkpoint and then its manifest, each whole or not at all.

    Args:
        folder: The run directory.
        step: The step it is of.
        content: What `torch.load` gives back; ``state_dict``, ``model_class`` and ``current_step`` at least.
        metrics: The values logged at this step.
        run_id: The run's id.

    Returns:
        The checkpoint file.

    Raises:
        StorageError: The file system refused; what was there before is whole.
    """
    path = checkpoint_path(folder, step)
    with files.open_atomically(path) as file:
        hashing = _Hashing(file)
        try:
            torch.save(dict(content), hashing)  # type: ignore[arg-type]
        except Exception:
            if hashing.error is not None:  # torch reports what the file system said as a failure of its own
                raise hashing.error from None
            raise
    manifest = {
        "size": hashing.size,
        "sha256": hashing.hexdigest(),
        "step": step,
        "metrics": dict(metrics),
        "run_id": run_id,
        "time": time.time(),
    }
    files.write_json(manifest_path(path), manifest)
    return path


def read_checkpoint(checkpoint: Checkpoint, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads a checkpoint, having compared it with its manifest where it has one.

    Raises:
        CheckpointCorruptError: The file is not what its manifest says, or is no checkpoint.
    """
    if checkpoint.problem:
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} is damaged: {checkpoint.problem}.")
    if checkpoint.sha256:
        with checkpoint.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != checkpoint.sha256:
            raise CheckpointCorruptError(
                f"The checkpoint {checkpoint.path} is damaged: its sha256 is not the one in its manifest."
            )
    try:
        content = torch.load(checkpoint.path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointCorruptError(f"The checkpoint {checkpoint.path} cannot be read: {error}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointCorruptError(f"The file {checkpoint.path} is no checkpoint: it holds no 'state_dict'.")
    return content


def load_weights(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Loads a checkpoint's weights strictly.

    Raises:
        CheckpointMismatchError: They are another model's; the text names both classes and the first differing keys.
    """
    wanted, found = model.state_dict(), content["state_dict"]
    differing = [f"{key!r} is missing" for key in wanted if key not in found]
    differing += [f"{key!r} is too much" for key in found if key not in wanted]
    differing += [
        f"{key!r} has shape {tuple(found[key].shape)} where {tuple(value.shape)} fits"
        for key, value in wanted.items()
        if key in found and hasattr(value, "shape") and found[key].shape != value.shape
    ]
    if differing:
        more = f" and {len(differing) - _MOST_KEYS} more" if len(differing) > _MOST_KEYS else ""
        raise CheckpointMismatchError(
            f"The checkpoint of a {content.get('model_class', 'model of unknown class')} does not fit this "
            f"{class_path(type(model))}: {', '.join(differing[:_MOST_KEYS])}{more}."
        )
    model.load_state_dict(found, strict=True)


def class_path(cls: type) -> str:
    """Returns where a class can be imported from, such as ``darkit.models.gpt.GPT``."""
    return f"{cls.__module__}.{cls.__qualname__}"
