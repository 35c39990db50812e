"""Queued rows: none lost, in order, from another thread, and errors reach the caller."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from darkit.engine.log.progress import Display
from darkit.engine.log.rows import RowStream
from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.errors import LogError, StorageError
from darkit.runs.log import CsvLog, read_log


class Collector:
    """A sink that keeps its rows, and can be set to fail."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.error: Exception | None = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.error is not None:
            raise self.error
        self.rows.extend(rows)
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.closed += 1


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait at most ten seconds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def log(tmp_path: Path) -> CsvLog:
    return CsvLog(tmp_path / "train_log.csv", ["step", "train_loss"])


def steps(log: CsvLog) -> list[int]:
    frame = read_log(log.path)
    return frame["step"].to_list() if "step" in frame.columns else []


def test_rows_reach_log_and_sinks_from_another_thread_without_being_asked(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log, [sink])
    for step in range(100):
        stream.put({"step": step, "train_loss": torch.tensor(step / 4)})
    wait_for(lambda: len(sink.rows) == 100)
    assert sink.threads == {"darkit-log"}
    assert steps(log) == list(range(100))
    assert [row["train_loss"] for row in sink.rows] == [step / 4 for step in range(100)]
    stream.close()


def test_flush_writes_all_queued_rows(log: CsvLog) -> None:
    stream = RowStream(log)
    stream.put({"step": 1})
    stream.flush()
    assert steps(log) == [1]
    stream.close()


def test_close_writes_the_rest_closes_the_sinks_once_and_ends_the_thread(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log, [sink])
    stream.put({"step": 1})
    stream.close()
    stream.close()
    assert steps(log) == [1]
    assert sink.closed == 1
    assert "darkit-log" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(LogError, match="the run has ended"):
        stream.put({"step": 2})


def test_tensors_of_every_kind_are_logged_as_the_numbers_they_are(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log, [sink])
    values = {
        "a": torch.tensor(0.1),
        "b": torch.tensor([2**60 + 1]),
        "c": torch.tensor(0.1, dtype=torch.float64),
        "d": torch.tensor(True),
        "e": 0.25,
        "f": torch.tensor(1.0, dtype=torch.bfloat16),
    }
    stream.put({"step": 1, **values})
    stream.close()
    expected = {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in values.items()}
    assert sink.rows == [{"step": 1, **expected}]


def test_a_sink_that_joins_later_gets_the_rows_from_then_on(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log)
    stream.put({"step": 1})
    stream.flush()
    stream.add([sink])
    stream.put({"step": 2})
    stream.close()
    assert [row["step"] for row in sink.rows] == [2]
    assert sink.closed == 1


def test_an_unknown_column_is_refused_when_it_is_put(tmp_path: Path) -> None:
    stream = RowStream(CsvLog(tmp_path / "log.csv", ["step", "loss"], fixed=True))
    with pytest.raises(LogError, match=r"no column 'los'\. Did you mean 'loss'"):
        stream.put({"step": 1, "los": 2.0})
    stream.put({"step": 1, "loss": 2.0})
    stream.close()
    assert read_log(tmp_path / "log.csv").rows() == [(1, 2.0)]


def test_an_error_of_a_watch_in_the_thread_is_raised_by_the_next_row_and_no_row_is_lost(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log, [sink])
    told: list[int] = []

    def watch() -> None:
        if not told:
            told.append(1)
            raise ArithmeticError("not finite")

    stream.watches.append(watch)
    stream.put({"step": 0})
    wait_for(lambda: bool(told))
    put = 1

    def refused() -> bool:
        nonlocal put
        try:
            stream.put({"step": put})
        except ArithmeticError:
            return True
        put += 1
        return False

    wait_for(refused)
    stream.put({"step": put})
    stream.close()
    assert steps(log) == list(range(put + 1))
    assert [row["step"] for row in sink.rows] == list(range(put + 1))
    assert sink.closed == 1


def test_the_thread_writes_on_after_an_error(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log, [sink])
    sink.error = OSError("no space")
    stream.put({"step": 1})

    def refused() -> bool:
        try:
            stream.put({"step": 2})
        except OSError:
            return True
        return False

    wait_for(refused)
    sink.error = None
    stream.put({"step": 3})
    wait_for(lambda: steps(log)[-1:] == [3])
    stream.close()


def test_an_error_that_nobody_met_is_raised_by_close_and_everything_else_still_ends(log: CsvLog) -> None:
    bad, good = Collector(), Collector()
    bad.error = OSError("no space")
    stream = RowStream(log, [bad, good])
    stream.put({"step": 1})
    with pytest.raises(OSError, match="no space"):
        stream.close()
    assert steps(log) == [1]
    assert (bad.closed, good.closed) == (1, 1)


def test_an_error_of_a_sink_is_raised_by_flush(log: CsvLog) -> None:
    sink = Collector()
    stream = RowStream(log, [sink])
    sink.error = OSError("no space")
    stream.put({"step": 1})
    with pytest.raises(OSError, match="no space"):
        stream.flush()
    sink.error = None
    stream.close()


def test_rows_that_could_not_be_written_come_before_those_put_later(log: CsvLog) -> None:
    stream = RowStream(log)
    stream.put({"step": 1})
    stream.flush()
    kept = log.path.rename(log.path.with_name("kept.csv"))
    log.path.mkdir()  # nothing can be appended to a folder
    stream.put({"step": 2})
    with pytest.raises(StorageError):
        stream.flush()
    log.path.rmdir()
    kept.rename(log.path)
    with contextlib.suppress(StorageError):  # the thread may have tried in between, too
        stream.flush()
    stream.put({"step": 3})
    stream.close()
    assert steps(log) == [1, 2, 3]


ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["train_loss", "val_loss", "acc", "note"]),
        st.one_of(
            st.floats(allow_nan=False, width=32),
            st.floats(allow_nan=False, width=32).map(torch.tensor),
            st.integers(-(2**31), 2**31),
        ),
    ),
    max_size=20,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.integers(1, 5))
def test_queued_rows_are_read_back_in_order(tmp_path: Path, rows: list[dict[str, Any]], every: int) -> None:
    path = tmp_path / "log.csv"
    path.unlink(missing_ok=True)
    stream = RowStream(CsvLog(path))
    for step, row in enumerate(rows):
        stream.put({"step": step, **row})
        if step % every == 0:
            stream.flush()
    stream.close()
    frame = read_log(path)
    assert frame.height == len(rows)
    for step, row in enumerate(rows):
        read = frame.row(step, named=True)
        assert read["step"] == step
        assert {key: read[key] for key in row} == {key: float(value) for key, value in row.items()}


def test_every_sink_that_cannot_be_closed_is_named(log: CsvLog) -> None:
    class Stuck(Collector):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def close(self) -> None:
            raise StorageError(28, f"{self.name} is full")

    stream = RowStream(log, [Stuck("one"), Stuck("two")])
    with pytest.raises(StorageError, match="one is full") as caught:
        stream.close()
    assert [note for note in caught.value.__notes__ if "two is full" in note]


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["numbers", "tensors"])
def test_a_longer_block_takes_no_more_calls_in_python_and_one_write_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[float], Any]
) -> None:
    """The thread's Python keeps the training thread waiting: a regression of kind would multiply with the rows."""
    monkeypatch.setattr("darkit.engine.log.rows._INTERVAL", 3600.0)
    screen = Display(None, lambda: 0, Console(file=io.StringIO()))
    stream = RowStream(CsvLog(tmp_path / "log.csv"), [TensorBoardSink(tmp_path), screen])

    def calls_of_block(first: int, count: int) -> tuple[int, int, int]:
        for step in range(first, first + count):
            stream.put({"step": step, "epoch": 0, "time": 1e9 + step, "lr": 0.1, "train_loss": kind(step / 7)})
        made = {"call": 0, "c_call": 0, "write": 0}

        def note(frame: Any, event: str, argument: Any) -> None:
            if event in made:
                made[event] += 1
                made["write"] += argument is os.write

        sys.setprofile(note)
        try:
            stream.flush()
        finally:
            sys.setprofile(None)
        return made["call"], made["c_call"], made["write"]

    calls_of_block(200, 10)
    short, long = calls_of_block(1000, 100), calls_of_block(2000, 300)
    stream.close()
    assert (short[2], long[2]) == (2, 2)
    assert (long[0] - short[0]) / 200 <= (0.1 if kind is float else 3.1)
    assert (long[1] - short[1]) / 200 <= (15 if kind is float else 30)
