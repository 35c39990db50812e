"""The log in TensorBoard's format: one event per row, written without TensorBoard's slow writer."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from darkit.runs.files import append_block, storage_errors
from darkit.runs.safe import make_folder, open_for_writing

_X_COLUMNS = ("step", "time")


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
        self._block = io.BytesIO()
        self._writer = RecordWriter(self._block)
        self._descriptor: int | None = None
        with self._storage():
            folder.parent.mkdir(parents=True, exist_ok=True)
            make_folder(folder)
            self._descriptor = open_for_writing(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._flush()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append one event per row."""
        for row in rows:
            values = [
                Summary.Value(tag=key, simple_value=value)
                for key, value in row.items()
                if key not in _X_COLUMNS and isinstance(value, float | int)
            ]
            step, wall = row.get("step"), row.get("time")
            self._add(
                Event(
                    wall_time=wall if isinstance(wall, float | int) else time.time(),
                    step=step if isinstance(step, int) else 0,
                    summary=Summary(value=values),
                )
            )
        self._flush()

    def close(self) -> None:
        """Close the event file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with self._storage():
                os.close(descriptor)

    def _flush(self) -> None:
        """Write the events since the last call, all or none."""
        data = self._block.getvalue()
        self._block.seek(0)
        self._block.truncate()
        if data and self._descriptor is not None:
            with self._storage():
                append_block(self._descriptor, data)

    def _storage(self) -> AbstractContextManager[None]:
        return storage_errors(f"write the events {self._path}")

    def _add(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
