"""The log in TensorBoard's format: one event per row, written without the layers that cost more than the training."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from darkit.runs.safe import make_folder, open_for_writing

_X_COLUMNS = ("step", "time")


class TensorBoardSink:
    """Writes the numbers of each row as scalars at the row's step.

    Args:
        folder: Where the event file goes; it is created.
        purge_step: First step that is void in earlier event files, when a run goes on from a checkpoint; or None.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = os.fdopen(open_for_writing(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")
        self._writer = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._writer.flush()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends one event per row."""
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
        if rows:
            self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()

    def _add(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
