"""Colours of curves: the same for a run everywhere, and told apart by everybody."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from darkit.dashboard.charts.colours import DASHES, PALETTE, colour, dash, places_of

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009):
# linear RGB as seen with a severity of 1
SEEN = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab_of(shown: str, seen: np.ndarray) -> np.ndarray:
    """Return a colour in CIE L*a*b*, in which equal distances look alike (ISO/CIE 11664-4)."""
    parts = np.array([int(shown[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    linear = np.clip(seen @ linear, 0, 1)
    x, y, z = XYZ @ linear / np.array([0.95047, 1.0, 1.08883])
    f = lambda t: np.cbrt(t) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29  # noqa: E731
    return np.array([116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))])


@pytest.mark.parametrize("seen", SEEN)
def test_eight_colours_are_told_apart_also_with_colour_blindness(seen: str) -> None:
    assert len(PALETTE) == 8
    places = [lab_of(shown, SEEN[seen]) for shown in PALETTE]
    assert min(np.linalg.norm(first - second) for first, second in combinations(places, 2)) > 20


def test_a_run_has_its_colour_whatever_is_beside_it_unless_an_earlier_one_has_it() -> None:
    alone = {name: places_of([name], {})[0] for name in map(str, range(40))}
    assert set(alone.values()) == set(range(8))
    other = next(name for name, place in alone.items() if place != alone["0"])
    same = next(name for name, place in alone.items() if place == alone["0"] and name != "0")
    assert places_of(["0", other], {}) == places_of([other, "0"], {})[::-1] == [alone["0"], alone[other]]
    assert places_of(["0", same], {}) == [alone["0"], (alone["0"] + 1) % 8]
    assert places_of(["0", other, same], {})[:2] == places_of(["0", other], {})  # a further one changes none before


def test_the_ninth_run_has_another_dash_and_a_chosen_colour_comes_first() -> None:
    names = [str(name) for name in range(33)]
    places = places_of(names, {})
    assert sorted(places[:32]) == list(range(32))
    assert {dash(place) for place in places[:8]} == {"solid"}
    assert {dash(place) for place in places[8:16]} == {DASHES[1]}
    chosen = places_of(names[:8], {"5": 3, "6": 3})
    assert (chosen[5], chosen[6]) == (3, 8 + 3)
    assert colour(chosen[5]) == colour(chosen[6]) == PALETTE[3]
    assert len(set(chosen)) == 8
