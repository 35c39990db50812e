"""The work of a step as a run records it, and the pace of a log."""

from __future__ import annotations

import math
from typing import Any

import polars
import pytest

from darkit.runs.work import WORK, Work, read_work, steps_per_second, work_facts


def test_what_was_recorded_is_read() -> None:
    work = Work(100, 90, 8, tokens=64, flops=12_000, peak=1e6, peak_source="peak_flops")
    assert read_work({WORK: vars(work)}) == work
    assert dict(work_facts(work, 20.0)) == {
        "parameters": "100, of which 90 are trained",
        "speed": "160 samples/s, 1280 tokens/s",
        "FLOPs": "1.2e+04 per step, 2.4e+05 per second",
        "MFU": "24.0% of 1e+06 per second (peak_flops)",
    }
    assert dict(work_facts(Work(1, 1, 1, uncounted="compile=true"), None))["FLOPs"] == "not counted: compile=true"


@pytest.mark.parametrize("found", [None, [], "x", {}, {"parameters": "1", "trained": 1, "samples": 1}])
def test_what_is_no_count_is_nothing(found: Any) -> None:
    assert read_work({WORK: found}) is None


@pytest.mark.parametrize("value", [True, -1, 2**200, math.nan, "1", [1], None])
def test_values_of_a_stranger_are_left_out(value: Any) -> None:
    info = {WORK: {"parameters": 1, "trained": 1, "samples": 1, "flops": value, "peak": -1, "uncounted": [1]}}
    assert read_work(info) == Work(1, 1, 1)


def test_the_pace_is_that_of_most_rows() -> None:
    times = [0.0, 0.5, 1.0, 1.5, 9.0, 9.5, 9.5, None, 10.0]
    steps = [1, 2, 3, 4, 5, 6, 6, 7, 7]
    assert steps_per_second(polars.DataFrame({"step": steps, "time": times})) == 2.0
    assert steps_per_second(polars.DataFrame({"step": [1], "time": [1.0]})) is None
    assert steps_per_second(polars.DataFrame({"step": ["a", "b"], "time": [1.0, 2.0]})) is None
    assert steps_per_second(polars.DataFrame({"step": [1, 2]})) is None
