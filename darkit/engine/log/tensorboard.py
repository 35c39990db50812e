"""The log in TensorBoard's format: one event per row."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from darkit.engine.log.events import file_version, scalars, session_start
from darkit.runs.files import append_block, storage_errors
from darkit.runs.safe import make_folder, open_for_writing


class TensorBoardSink:
    """Write the numbers of each row as scalars at the row's step.

    Args:
        folder: The folder of the event file; it is created.
        purge_step: First invalid step in earlier event files when a run is resumed, or None.

    Raises:
        StorageError: The file system failed; earlier events are intact.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._descriptor: int | None = None
        with self._storage():
            folder.parent.mkdir(parents=True, exist_ok=True)
            make_folder(folder)
            self._descriptor = open_for_writing(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        start = file_version(time.time())
        if purge_step is not None:
            start += session_start(time.time(), purge_step)
        self._append(start)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append one event per row, all or none."""
        if rows:
            self._append(scalars(rows, time.time()))

    def close(self) -> None:
        """Close the event file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with self._storage():
                os.close(descriptor)

    def _append(self, data: bytes) -> None:
        if self._descriptor is not None:
            with self._storage():
                append_block(self._descriptor, data)

    def _storage(self) -> AbstractContextManager[None]:
        return storage_errors(f"write the events {self._path}")
