"""The values of metrics: the steps of the best one and of a divergence, whichever column a series has as x."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.columns import CHUNK
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.series import divergence, lost_at, series_values
from darkit.runs import files
from tests.dashboard.parts import make_run


@pytest.mark.parametrize("x", ["step", "epoch", "gone"])
def test_the_best_and_the_lost_value_are_at_steps_whatever_x_a_series_declares(home: Path, x: str) -> None:
    losses = {330: 0.001} | dict.fromkeys(range(450, 501), math.nan)
    make_run(home / "base", "one", 500, series={"train_loss": [x, "train_loss"]}, losses=losses)
    library = Library(home / "base", LogCache())
    facts = library.facts("one")
    (table,) = library.logs([facts], "log")
    value = series_values(facts, table)["train_loss"]
    assert (value.best, value.best_at, value.lost) == (0.001, 330, 450)
    assert lost_at(facts, table) == ("train_loss", 450)


@pytest.mark.parametrize("rows", [7_000, CHUNK + 7_000, 2 * CHUNK])
def test_a_metric_that_became_nan_long_before_the_last_row_is_known_to_the_table_too(home: Path, rows: int) -> None:
    folder = make_run(home / "base", "one", 3)
    lines = ["step,epoch,time,lr,train_loss,val_loss"]
    lines += [f"{step},0,1,0.001,0.5,{ {100: 0.4, 1000: 'NaN'}.get(step, '') }" for step in range(1, rows + 1)]
    (folder / files.LOG).write_text("\n".join(lines) + "\n")
    library = Library(home / "base", LogCache())
    facts = library.facts("one")
    (table,) = library.logs([facts], "log")
    found = divergence(facts, series_values(facts, table))
    assert found == lost_at(facts, table) == ("val_loss", 1000)
    with (folder / files.LOG).open("a") as log:
        log.write(f"{rows + 1},0,1,0.001,0.5,0.3\n")
    (table,) = library.logs([facts], "log")
    assert lost_at(facts, table) is None
