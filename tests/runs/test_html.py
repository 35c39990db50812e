"""What a notebook shows of a run."""

from __future__ import annotations

import math
import re
from pathlib import Path

from darkit.runs import Run, files
from tests.dashboard.parts import make_run

EVIL = "<img src=x onerror=alert(1)>\"'&"


def points(shown: str) -> list[tuple[float, float]]:
    (line, *_) = re.findall(r'points="([^"]*)"', shown)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


def test_a_run_shows_its_state_last_and_best_values_and_a_chart_with_every_peak(home: Path) -> None:
    folder = make_run(home / "base", "long", 20_000, losses={7_777: 50.0, 20_000: 0.5}, max_step=30_000)
    shown = Run(folder)._repr_html_()
    assert "<b>long</b>" in shown
    assert "● finished" in shown
    assert "step 20,000 of 30,000" in shown
    assert ">train_loss<" in shown
    assert ">0.5<" in shown
    line = points(shown)
    assert len(line) <= 4 * 420
    top = min(line, key=lambda point: point[1])
    assert top[1] == 2.0, "the peak is at the top"
    assert abs(top[0] / 420 - 7_777 / 20_000) < 0.01
    assert [x for x, _ in line] == sorted(x for x, _ in line)


def test_a_run_that_diverged_says_so_though_it_finished_and_its_numbers_are_those_of_the_page(home: Path) -> None:
    losses = dict.fromkeys(range(41, 61), math.nan) | {20: math.inf, 30: 0.00012345678}
    shown = Run(make_run(home / "base", "warned", 60, losses=losses))._repr_html_()
    assert "● finished" in shown
    assert "diverged at step 41" in shown
    assert ">1.2346e-4 ⚠<" in shown
    sound = Run(make_run(home / "base", "sound", 60, losses={20: math.nan}))._repr_html_()
    assert "diverged" not in sound
    assert "⚠" not in sound


def test_no_text_of_a_run_is_markup_there_and_nothing_in_its_files_breaks_it(home: Path) -> None:
    series = {EVIL: ["step", "train_loss"], "gone": ["step", "nowhere"]}
    folder = make_run(home / "base", "evil", 30, state=EVIL, reason=EVIL, series=series)
    shown = Run(folder)._repr_html_()
    assert "<img" not in shown
    assert "&lt;img src=x" in shown
    log = folder / files.LOG
    log.unlink()
    assert "<svg" not in Run(folder)._repr_html_()
    log.mkdir()
    assert "Cannot read the log" in Run(folder)._repr_html_()
    log.rmdir()
    log.write_text("step,loss,word\n1,NaN,a\n2,inf,b\n")
    assert ">∞<" in Run(folder)._repr_html_()
    log.write_text("step,loss\n5,1\n")
    assert "<circle" in Run(folder)._repr_html_()
    assert "● crashed" in Run(home / "base" / "missing")._repr_html_()


def test_a_chart_of_values_as_far_apart_as_floats_can_be_is_drawn(home: Path) -> None:
    folder = make_run(home / "base", "wide", 3, losses={1: 1e308, 2: -1e308, 3: 1e308})
    assert points(Run(folder)._repr_html_()) == [(2.0, 2.0), (210.0, 108.0), (418.0, 2.0)]


def test_many_metrics_are_counted_and_those_that_diverged_say_where(home: Path) -> None:
    columns = ("step", "time", *(f"m{index}" for index in range(20)))
    folder = make_run(home / "base", "wide", 2, series={}, diverged=1_000)
    (folder / files.LOG).write_text(",".join(columns) + "\n" + ",".join("1" for _ in columns) + "\n")
    shown = Run(folder)._repr_html_()
    assert "and 8 more metrics" in shown
    assert "diverged at step 1,000" in shown


def test_a_column_whose_name_is_a_pattern_is_that_column(home: Path) -> None:
    folder = make_run(home / "base", "strange", 3)
    (folder / files.LOG).write_text('step,"^.*loss$",train_loss\n1,2,3\n2,3,4\n')
    shown = Run(folder)._repr_html_()
    assert len(re.findall(r'points="', shown)) == 2
    assert "^.*loss$" in shown
