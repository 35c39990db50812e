"""TensorBoard reads the values of the log from the event files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import darkit
from darkit.engine.log.tensorboard import TensorBoardSink
from tests.engine.parts import LossMLP, made, train, xy


def scalars(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Step, wall time and value by tag, from TensorBoard's own reader."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.wall_time, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def assert_equal_to_the_log(run: darkit.Run) -> None:
    log = run.log()
    read = scalars(run.path / "tensorboard")
    assert set(read) == {column for column in log.columns if log[column].count()} - {"step", "time"}
    for tag, events in read.items():
        rows = log.filter(log[tag].is_not_null())
        assert [step for step, _, _ in events] == rows["step"].to_list()
        assert [wall for _, wall, _ in events] == pytest.approx(rows["time"].to_list())
        assert [value for _, _, value in events] == pytest.approx(rows[tag].to_list(), rel=1e-6)


def test_event_files_equal_the_log() -> None:
    run = train(made(LossMLP), xy(), xy(), tensorboard=True, max_step=20, eval_step_interval=5)
    assert_equal_to_the_log(run)
    assert "absolute" in run.log().columns


def test_event_files_of_a_run_that_went_on_from_an_earlier_step_equal_the_log() -> None:
    options: dict[str, Any] = {"tensorboard": True, "save_step_interval": 4, "name": "on"}
    train(made(LossMLP), xy(), max_step=10, **options)
    run = train(made(LossMLP), xy(), max_step=12, resume="on:iter-4-ckpt", **options)
    assert run.log()["step"].to_list() == list(range(1, 13))
    assert_equal_to_the_log(run)


def test_without_tensorboard_no_folder_is_made() -> None:
    run = train(made(), xy(), tensorboard=False)
    assert not (run.path / "tensorboard").exists()


def test_only_numbers_are_written_also_those_that_are_not_finite(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path / "events")
    sink.write([{"step": 3, "loss": math.nan, "note": "text", "none": None, "big": math.inf, "count": 7}])
    sink.close()
    read = scalars(tmp_path / "events")
    assert set(read) == {"loss", "big", "count"}
    assert math.isnan(read["loss"][0][2])
    assert read["big"][0][2] == math.inf
    assert [(step, value) for step, _, value in read["count"]] == [(3, 7.0)]


def test_rows_can_be_read_before_the_run_ends(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    sink.write([{"step": 1, "loss": 0.5}])
    assert [(step, value) for step, _, value in scalars(tmp_path)["loss"]] == [(1, 0.5)]
    sink.close()
