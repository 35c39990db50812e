"""darkit's way of writing checkpoints for a stock ``lightning.Trainer``."""

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
    """Writes checkpoints durably from a thread, with a manifest beside each, and verifies them when they are read.

    Give it to a stock trainer as ``Trainer(plugins=[DurableCheckpointIO()])``; whatever saves there, such as
    ``ModelCheckpoint``, then writes through it. An error of the thread is raised by the next save, or at the end.
    """

    def __init__(self) -> None:
        self._writer = BackgroundWriter()

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Takes a copy of the state and returns; the file is complete or not there.

        Raises:
            ConfigError: There are storage options: files are written to this machine only.
        """
        if storage_options is not None:
            raise ConfigError(
                f"Checkpoints are written to local files, which take no options such as {storage_options!r}."
            )
        target = Path(path)
        step = int(checkpoint.get("global_step", 0))
        target.parent.mkdir(parents=True, exist_ok=True)
        self._writer.submit(checkpoint, lambda copied: write_file(target, copied, {"step": step}))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Reads a checkpoint with ``weights_only``, having compared it with its manifest.

        Raises:
            CheckpointCorruptError: It is not what its manifest says, or no such archive.
        """
        self._writer.wait()
        found = describe_checkpoint(Path(path))
        if found is None:
            raise CheckpointCorruptError(f"The checkpoint {path} is gone.")
        return read_checkpoint(found, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint and its manifest, after everything that is still to be written is durable."""
        target = Path(path)

        self._writer.then(lambda: remove_files(target))

    def teardown(self) -> None:
        """Waits for the last file and ends the thread."""
        self._writer.close()
