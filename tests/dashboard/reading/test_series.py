"""The values of metrics: the steps of the best one and of a divergence, whichever column a series has as x."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.series import lost_at, series_values
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
