"""The records of event files are those of TensorBoard's own writer."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as crc32c_of_tensorboard
from torch.utils.tensorboard import SummaryWriter

from darkit.engine.log.events import crc32c
from darkit.engine.log.tensorboard import TensorBoardSink

Scalar = tuple[int, float, str, str]  # step, wall time, tag, value


def events(folder: Path) -> list[Event]:
    """All events of a folder; TensorBoard's reader compares the checksums."""
    return [
        Event.FromString(record)
        for path in sorted(folder.glob("events*"))
        for record in RawEventFileLoader(str(path)).Load()
    ]


def scalars(folder: Path) -> list[Scalar]:
    """The numbers of a folder in their order; NaN is compared by its name."""
    return [
        (event.step, event.wall_time, value.tag, repr(value.simple_value))
        for event in events(folder)
        for value in event.summary.value
    ]


def written_by_torch(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Scalar]:
    writer = SummaryWriter(str(folder))
    for row in rows:
        for tag, value in row.items():
            if tag not in ("step", "time") and isinstance(value, float | int):
                writer.add_scalar(tag, value, row["step"], row["time"])
    writer.close()
    return scalars(folder)


def test_a_training_of_all_kinds_of_rows_is_event_for_event_what_torch_writes(tmp_path: Path) -> None:
    made = random.Random(0)
    rows: list[dict[str, Any]] = []
    for step in (0, 1, 127, 128, 16383, 16384, 2**31, 2**35, 7, 2**62, -3):
        clock = {"step": step, "epoch": 0, "time": 1.7e9 + made.random()}
        rows += [
            {**clock, "lr": 0.1, "train_loss": made.random()},
            {**clock, "train_loss": made.choice([None, 2.5, 1, math.inf]), "note": "text", "val_loss": made.random()},
            {**clock, "é" * 40: 1e300, "flag": True, "nan": math.nan, "none": None, "large": 2**70, "tiny": 1e-42},
            {"step": step, "time": 2.0, **{f"column {number}": number / 7 for number in range(100)}},
        ]
    sink = TensorBoardSink(tmp_path / "darkit")
    sink.write(rows[:30])
    sink.write(rows[30:])
    sink.write([])
    sink.close()
    assert scalars(tmp_path / "darkit") == written_by_torch(tmp_path / "torch", rows)


def test_every_row_is_one_event_in_the_order_of_the_rows(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    sink.write([{"step": step, "time": 1.0, ("odd" if step % 2 else "even"): 0.5} for step in range(120, 140)])
    sink.close()
    assert [event.step for event in events(tmp_path)[1:]] == list(range(120, 140))


def test_a_file_begins_with_its_version_and_a_resumed_one_with_the_first_step_to_drop(tmp_path: Path) -> None:
    TensorBoardSink(tmp_path, purge_step=300).close()
    first, second = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert (second.step, second.session_log.status) == (300, SessionLog.START)
    assert min(first.wall_time, second.wall_time) > 1.7e9


@pytest.mark.parametrize("length", [4, 8, 127, 128, 129, 131, 132, 255, 256, 260, 1001])
def test_checksums_are_those_of_tensorboard(length: int) -> None:
    data = numpy.random.default_rng(length).integers(0, 256, (5, length), numpy.uint8)
    assert crc32c(data).tolist() == [crc32c_of_tensorboard(row.tobytes()) for row in data]


def test_checksums_are_those_of_the_standard() -> None:
    assert crc32c(numpy.zeros((1, 32), numpy.uint8)).tolist() == [0x8A9136AA]  # RFC 3720, appendix B.4
