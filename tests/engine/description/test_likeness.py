"""Two values are alike only if all their parts are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from darkit.engine.description.likeness import are_alike


class Scaled(nn.Module):
    """A layer with a number that no checkpoint has."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor


def enclosed(value: float) -> Callable[[], float]:
    return lambda: value


@pytest.mark.parametrize("make", [Scaled, enclosed, lambda value: functools.partial(max, value)])
@pytest.mark.parametrize("place", range(5))
def test_one_different_part_of_several_is_found_wherever_it_is(make: Callable[[float], Any], place: int) -> None:
    one, same = ([make(0.5) for _ in range(5)] for _ in range(2))
    other = [make(0.1 if here == place else 0.5) for here in range(5)]
    if make is Scaled:
        one, same, other = (nn.Sequential(*parts) for parts in (one, same, other))  # type: ignore[assignment]
    assert are_alike(one, same)
    assert not are_alike(one, other)
