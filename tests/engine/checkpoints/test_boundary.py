"""The state of Python's generator at the end of a step is read only where it may have changed, and never missed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from darkit.engine.checkpoints.boundary import Boundary


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize(
    "draw", [random.random, lambda: random.gauss(0, 1), lambda: random.seed(3), lambda: random.getrandbits(4), int]
)
def test_every_draw_of_pythons_generator_is_seen(draw: Callable[[], Any], found: bool) -> None:
    boundary = Boundary()
    assert boundary._python_address, "CPython keeps the state elsewhere: every step is slower"
    boundary._python_address *= found
    for _ in range(3):
        boundary.take(nn.Linear(1, 1))
        version, internal, gauss = random.getstate()
        assert boundary.generators()["python"] == [version, list(internal), gauss]
        draw()
