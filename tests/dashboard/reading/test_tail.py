"""A log read while it grows: complete rows exactly, everything else counted, never an exception."""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.dashboard.reading import tail
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.tail import LogTail, Table
from darkit.runs.log import CsvLog, read_log
from tests.runs.lines import Field, expected, headers, logs, number

COLUMNS = ("step", "loss", "note")
HEADER = b"step,loss,note\n"


def assert_same(values: np.ndarray, odd: np.ndarray, rows: list[list[Field]]) -> None:
    assert values.shape[1] == len(rows)
    for place, row in enumerate(rows):
        for column, field in enumerate(row):
            value = number(field)
            shown = values[column, place]
            assert odd[column, place] == (value is not None and not math.isfinite(value))
            assert (shown == value) if value is not None and value == value else math.isnan(shown)


def all_of(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Every number and flag of a table (columns, rows)."""
    width = range(len(table.columns))
    if not width:
        return np.empty((0, 0)), np.empty((0, 0), dtype=bool)
    return np.stack([table.content.column(at) for at in width]), np.stack([table.content.odd_of(at) for at in width])


@settings(max_examples=500)
@given(logs, headers, st.binary(max_size=8))
def test_the_dashboard_and_run_log_read_the_same_rows(tmp_path: Path, data: bytes, header: bytes, torn: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(header + b"\n" + data + torn.replace(b"\n", b""))
    followed, frame = LogTail(path).refresh(), read_log(path)
    assert list(followed.columns) == frame.columns
    assert followed.rows == frame.height
    for name in frame.columns:
        shown = followed.column(name).tolist()
        if frame[name].dtype.is_numeric():
            read = [math.nan if value is None else float(value) for value in frame[name]]
            assert all(one == other or (one != one and other != other) for one, other in zip(shown, read, strict=True))
        else:
            texts = [value is not None for value in frame[name]]
            assert all(has_value or math.isnan(one) for one, has_value in zip(shown, texts, strict=True))


@settings(max_examples=500)
@given(logs, st.data())
def test_a_log_cut_anywhere_and_continued_reads_as_if_it_had_come_at_once(
    tmp_path: Path, data: bytes, draw: st.DataObject
) -> None:
    whole = HEADER + data
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    path = tmp_path / "log.csv"
    path.unlink(missing_ok=True)
    reader = LogTail(path)
    with path.open("wb", buffering=0) as file:
        start = 0
        for end in [*cuts, len(whole)]:
            file.write(whole[start:end])
            start = end
            table = reader.refresh()
            seen = whole[len(HEADER) : end]
            rows, bad = expected(seen[: seen.rfind(b"\n") + 1], HEADER)
            assert_same(*all_of(table), rows if table.columns else [])
            assert table.bad == bad
    assert table.columns == COLUMNS


def read_byte_by_byte(path: Path, data: bytes) -> None:
    """Follow a log that comes in pieces of one byte: at every offset exactly the whole rows are there."""
    whole = HEADER + data[:400]
    path.unlink(missing_ok=True)
    reader = LogTail(path)
    with path.open("wb", buffering=0) as file:
        for end in range(len(whole)):
            file.write(whole[end : end + 1])
            table = reader.refresh()
            if whole[end : end + 1] == b"\n" or end == len(whole) - 1:
                rows, bad = expected(whole[len(HEADER) : whole.rfind(b"\n", 0, end + 1) + 1], HEADER)
                assert_same(*all_of(table), rows if table.columns else [])
                assert table.bad == bad
            assert table.generation == 0
            assert table.problem == ""


@settings(max_examples=100)
@given(logs)
def test_a_log_that_comes_byte_by_byte_never_shows_a_torn_row(tmp_path: Path, data: bytes) -> None:
    read_byte_by_byte(tmp_path / "log.csv", data)


@pytest.mark.soak
@settings(max_examples=10_000)
@given(logs)
def test_a_log_cut_at_every_offset_never_shows_a_torn_row_in_ten_thousand_cases(tmp_path: Path, data: bytes) -> None:
    read_byte_by_byte(tmp_path / "log.csv", data)


def test_every_offset_is_a_safe_place_to_cut(tmp_path: Path) -> None:
    whole = b"step,loss\n1,0.5\n22,NaN\n333,1e-3\n"
    path = tmp_path / "log.csv"
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        table = LogTail(path).refresh()
        complete = whole[:end].count(b"\n") - 1
        assert table.rows == max(0, complete)
        assert table.bad == 0
        path.unlink()


def test_a_file_that_shrank_or_was_replaced_is_read_again_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,1\n2,2\n3,3\n")
    reader = LogTail(path)
    first = reader.refresh()
    with path.open("r+") as file:
        file.truncate(len("step,loss\n1,1\n"))
    shrunk = reader.refresh()
    assert (shrunk.rows, shrunk.generation) == (1, first.generation + 1)
    other = tmp_path / "other"
    other.write_text("step,loss,more\n1,1,1\n2,2,2\n3,3,3\n4,4,4\n")
    os.replace(other, path)
    replaced = reader.refresh()
    assert replaced.columns == ("step", "loss", "more")
    assert (replaced.rows, replaced.generation) == (4, first.generation + 2)
    path.write_text("step,loss,more\n9,9,9\n8,8,8\n7,7,7\n6,6,6\n5,5,5\n")
    assert reader.refresh().column("step").tolist() == [9, 8, 7, 6, 5], "rewritten in place, and longer than before"
    assert first.rows == 3, "what was read stays as it was"


def test_a_line_longer_than_a_block_is_left_out_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "BLOCK", 1000)
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,1\n" + "x" * 5500 + "\n2,2\n" + "3,3\n" * 900)
    table = LogTail(path).refresh()
    assert table.bad == 1
    assert table.column("step").tolist() == [1, 2] + [3] * 900


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "binary", "endless"])
def test_a_file_that_is_not_a_log_is_reported_without_blocking(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "train_log.csv"
    if kind == "link":
        (tmp_path / "secret").write_text("step,loss\n1,1\n")
        path.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 10)
    else:
        path.write_bytes(b"x" * (tail.LONGEST_HEADER + 1))
    table = LogTail(path).refresh()
    assert table.rows == 0 or kind == "binary"
    assert table.problem or kind == "binary"


def test_many_logs_read_together_are_each_as_if_read_alone(tmp_path: Path) -> None:
    paths = []
    for index in range(30):
        path = tmp_path / f"{index}.csv"
        bad = "1,2,3,4\n" if index == 7 else ""
        path.write_text("a,b\n" + "".join(f"{index},{row}\n" for row in range(index * 3)) + bad)
        paths.append(path)
    together = LogCache().read_many(paths)
    for path, table in zip(paths, together, strict=True):
        alone = LogTail(path).refresh()
        assert np.array_equal(all_of(table)[0], all_of(alone)[0])
        assert table.bad == alone.bad


def test_the_cache_drops_what_was_used_least_recently_and_stays_under_its_bound(tmp_path: Path) -> None:
    paths = []
    for index in range(10):
        path = tmp_path / f"{index}.csv"
        path.write_text("a,b\n" + "1,2\n" * 1000)
        paths.append(path)
    one = LogCache()
    one.read_many(paths[:1])
    cache = LogCache(bound=3 * one.size)
    for path in paths:
        cache.read_many([path])
    assert cache.size <= 3 * one.size
    cache.read_many(paths[8:9])
    cache.read_many(paths[:1])
    cache.read_many(paths[1:2])
    assert set(cache._tails) == {paths[8], paths[0], paths[1]}


def write_for(path: Path, seconds: float) -> None:
    log = CsvLog(path, ("step", "value", "time"), fixed=True)
    end = time.monotonic() + seconds
    step = 0
    while time.monotonic() < end:
        step += 1
        log.append([{"step": step, "value": step * 0.1, "time": float(step)}])
        time.sleep(0.0007)


def test_eight_readers_of_a_fast_writer_see_no_torn_lost_or_double_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    writer = multiprocessing.get_context("spawn").Process(target=write_for, args=(path, 3.0))
    writer.start()
    wrong: list[str] = []
    lengths: list[int] = []

    def follow() -> None:
        reader = LogTail(path)
        looks = 0
        while True:
            alive = writer.is_alive()
            table = reader.refresh()
            if table.rows:
                looks += 1
                steps = table.column("step")
                if not np.array_equal(steps, np.arange(1, table.rows + 1)):
                    wrong.append(f"rows {steps[:5]}... of {table.rows}")
                if not np.array_equal(table.column("value"), steps * 0.1):
                    wrong.append("a torn value")
            if table.bad or table.problem or table.generation:
                wrong.append(f"{table.bad} bad lines, {table.problem!r}")
            if not alive:
                lengths.append(table.rows)
                return
            time.sleep(0.002)

    readers = [threading.Thread(target=follow) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    writer.join(10)
    assert wrong == []
    written = path.read_text().count("\n") - 1
    assert lengths == [written] * 8
    assert written > 300
