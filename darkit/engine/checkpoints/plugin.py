"""Durable checkpoints for a stock ``lightning.Trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO

from darkit.engine.checkpoints.checkpoint import read_checkpoint, write_file
from darkit.engine.checkpoints.writer import BackgroundWriter
from darkit.errors import CheckpointCorruptError, ConfigError
from darkit.runs.checkpoints import describe_checkpoint
from darkit.runs.retention import remove_files


class DurableCheckpointIO(CheckpointIO):
    """Write checkpoints durably in a thread, with a manifest, and verify them on loading.

    Use it as ``Trainer(plugins=[DurableCheckpointIO()])``, for example with ``ModelCheckpoint``. An error of the thread
    is raised by the next save, or at the end.
    """

    def __init__(self) -> None:
        self._writer = BackgroundWriter()

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Copy the state and return; the file is written atomically.

        Raises:
            ConfigError: Storage options are given; only local files are supported.
        """
        if storage_options is not None:
            raise ConfigError(f"Checkpoints are local files and take no storage options, but got {storage_options!r}.")
        target = Path(path)
        step = int(checkpoint.get("global_step", 0))
        target.parent.mkdir(parents=True, exist_ok=True)
        self._writer.submit(checkpoint, lambda copied: write_file(target, copied, {"step": step}))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Verify a checkpoint against its manifest and read it with ``weights_only``.

        Raises:
            CheckpointCorruptError: The file does not match its manifest, or is not a checkpoint.
        """
        self._writer.wait()
        found = describe_checkpoint(Path(path))
        if found is None:
            raise CheckpointCorruptError(f"The checkpoint {path} does not exist.")
        return read_checkpoint(found, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint and its manifest, after all pending writes."""
        self._writer.then(lambda: remove_files(Path(path)))

    def teardown(self) -> None:
        """Wait for pending writes and end the thread."""
        self._writer.close()
