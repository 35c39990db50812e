"""The progress display: lines without a terminal, a bar on one, and nothing of Lightning."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from darkit.engine.log.progress import Display, Screen, announce
from darkit.engine.log.rate import Rate, speed

SCRIPT = """
import torch, darkit
from tests.engine.parts import made, xy, train
train(made(), xy(), xy(), max_step={steps}, log_step_interval={every}, eval_step_interval=10, lr=0.0, name="shown")
"""


def run(python: str, steps: int, every: int, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home), "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "PYTHONWARNINGS"):
        environment.pop(name, None)
    code = SCRIPT.format(steps=steps, every=every)
    return subprocess.run(
        [python, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_without_a_terminal_the_first_and_last_line_are_printed_and_nothing_of_lightning(
    python: str, home: Path
) -> None:
    result = run(python, 25, 4, home)
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    assert [int(re.match(r"step (\d+)/25  train_loss ", line)[1]) for line in lines] == [4, 25]
    pace = r"(  \d+\.\d steps/s  (\d+:)?\d+:\d\d left)?"
    for line in lines:
        assert re.fullmatch(rf"step \d+/25  train_loss \S+(  val_loss \S+)?{pace}", line), line
    assert ["val_loss" in line for line in lines] == [False, True]
    assert result.stdout == ""


def plain() -> tuple[Display, io.StringIO]:
    text = io.StringIO()
    return Display(10, lambda: 4, Console(file=text, width=40)), text


def test_a_long_line_is_not_broken_and_brackets_are_not_markup() -> None:
    display, text = plain()
    display.write([{"step": 4, "train_loss": 0.123456789, "val_loss": 123456789.0, "note": "[bold]"}])
    display.close()
    assert len(text.getvalue().splitlines()) == 1
    assert text.getvalue().startswith("step 4/10  train_loss 0.1235  val_loss 1.235e+08")


def test_losses_that_are_not_finite_are_shown_as_such() -> None:
    display, text = plain()
    display.write([{"step": 4, "train_loss": float("nan")}, {"step": 5, "train_loss": float("-inf")}])
    display.close()
    assert "train_loss nan" in text.getvalue()
    assert "train_loss -inf" in text.getvalue()


class Clock:
    """A clock set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("darkit.engine.log.progress.time.monotonic", lambda: self.now)


def test_two_thousand_steps_in_a_file_are_a_line_every_few_seconds_and_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, text, step = Clock(monkeypatch), io.StringIO(), 0
    display = Display(2000, lambda: step, Console(file=text))
    for step in range(1, 2001):  # ten a second, of which two come in a block
        clock.now = step / 10
        display.write([{"step": step, "train_loss": 1.0, "val_loss": 2.0 if step == 60 else None}] if step % 2 else [])
    display.write([{"step": 2000, "train_loss": 0.5}])
    display.close()
    steps = [int(re.match(r"step (\d+)/2000 ", line)[1]) for line in text.getvalue().splitlines()]
    assert len(steps) <= 2 + 200 / 5
    assert (steps[0], steps[-1]) == (1, 2000)
    assert all(later - earlier >= 50 for earlier, later in itertools.pairwise(steps[:-1]))


def test_a_validation_loss_between_two_lines_is_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, text, step = Clock(monkeypatch), io.StringIO(), 0
    display = Display(100, lambda: step, Console(file=text))
    for step in (1, 2, 3):
        display.write([{"step": step, "train_loss": 1.0, **({"val_loss": 2.0} if step == 2 else {})}])
    clock.now = 6.0
    display.write([])
    assert text.getvalue().splitlines()[1].startswith("step 3/100  train_loss 1  val_loss 2")
    display.close()
    assert len(text.getvalue().splitlines()) == 2, "what was printed is not printed again at the end"


def test_a_rate_is_shown_when_known_and_excludes_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, text, step = Clock(monkeypatch), io.StringIO(), 0
    display = Display(100, lambda: step, Console(file=text))
    for look in range(200):  # four looks a second; the first step takes 30 seconds, then each takes one
        clock.now = look / 4
        step = max(0, int(clock.now) - 29)
        display.write([{"step": step, "train_loss": 1.0}] if step and look % 4 == 0 else [])
    rates = re.findall(r"(\S+) (steps/s|s/step)", text.getvalue())
    assert text.getvalue().splitlines()[0] == "step 1/100  train_loss 1"
    assert rates
    assert set(rates) == {("1.0", "steps/s")}


def test_a_slow_step_is_shown_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [speed(rate) for rate in (None, 1234.56, 1.0, 0.25, 1 / 90, 0.0)] == [
        "",
        "1234.6 steps/s",
        "1.0 steps/s",
        "4.0 s/step",
        "90.0 s/step",
        "0.0 steps/s",
    ]


@given(st.floats(0.01, 1000), st.integers(0, 5), st.floats(0, 0.25))
def test_any_rate_that_is_shown_is_right_within_a_tenth(seconds: float, start: int, offset: float) -> None:
    now = 0.0
    rate = Rate(lambda: start + int(now / seconds), lambda: now)
    for look in range(200):
        now = look / 4 + offset
        rate.measure()
        assert rate.value is None or abs(rate.value * seconds - 1) <= 0.12
    if 0.3 < seconds < 4:
        assert rate.value is not None


def test_a_row_without_step_or_loss_is_a_line_too() -> None:
    display, text = plain()
    display.write([{"reward": 1.0}])
    assert text.getvalue().startswith("step 4/10")


def test_on_a_terminal_a_bar_shows_steps_losses_rate_and_time_left() -> None:
    text = io.StringIO()
    step = 0
    display = Display(1000, lambda: step, Console(file=text, force_terminal=True, width=120, color_system=None))
    for step in range(1, 501):
        display.write([{"step": step, "train_loss": 0.25, "val_loss": 0.5 if step % 100 == 0 else None}])
    display.close()
    shown = text.getvalue()
    last = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", shown).replace("\r", "\n").strip().splitlines()[-1]
    assert "500/1000" in last
    assert "train_loss 0.25" in last
    assert "val_loss 0.5" in last
    assert re.search(r"(\d+\.\d steps/s)? +left (-:--:--|\d:\d\d)", last)
    assert shown.count("500/1000") <= 3
    assert shown.count("/1000") < 100


def test_a_resumed_bar_starts_at_its_step() -> None:
    text = io.StringIO()
    Display(10, lambda: 7, Console(file=text, force_terminal=True, width=120, color_system=None)).close()
    assert "7/10" in text.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_closed_terminal_does_not_end_the_training(terminal: bool) -> None:
    reader, writer = os.pipe()
    file = os.fdopen(writer, "w")
    display = Display(10, lambda: 4, Screen(file=file, force_terminal=terminal))
    os.close(reader)
    for step in range(3):
        display.write([{"step": step, "train_loss": 1.0}])
    display.close()
    with contextlib.suppress(BrokenPipeError):
        file.close()


def test_a_closed_file_does_not_end_the_training() -> None:
    text = io.StringIO()
    display = Display(10, lambda: 4, Screen(file=text))
    text.close()
    display.write([{"step": 1, "train_loss": 1.0}])
    display.close()


def test_the_log_continues_after_a_broken_pipe(home: Path) -> None:
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home), "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    code = SCRIPT.format(steps=3000, every=1)
    training = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    assert training.stderr is not None
    assert training.stderr.readline().startswith("step 1/3000")
    training.stderr.close()
    assert training.wait(timeout=120) == 0
    lines = (home / "base" / "shown" / "train_log.csv").read_text().splitlines()
    assert lines[-1].startswith("3000,")


@pytest.mark.parametrize("width", [50, 60, 72, 80, 99, 100, 160])
def test_a_bar_shows_the_steps_and_both_losses_whole_on_any_terminal(width: int) -> None:
    text = io.StringIO()
    display = Display(100_000, lambda: 34_567, Console(file=text, force_terminal=True, width=width, color_system=None))
    display.write([{"step": 34_567, "train_loss": 0.012345, "val_loss": 0.0456789}])
    display.close()
    last = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", text.getvalue()).replace("\r", "\n").strip().splitlines()[-1]
    assert "34567/100000" in last.replace(" ", "")
    assert all(f"{value:.4g}" in last for value in (0.012345, 0.0456789))
    assert ("left -:--:--" in last) == (width >= 72)
    assert len(last) <= width


def test_announcing_to_nobody_does_not_end_the_training() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    file = os.fdopen(writer, "w")
    with contextlib.redirect_stderr(file):
        announce("The run goes on.")
    with contextlib.suppress(BrokenPipeError):
        file.close()
