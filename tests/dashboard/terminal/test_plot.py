"""A chart of characters: each value is where it belongs, and every peak is there."""

from __future__ import annotations

import numpy as np
import pytest

from darkit.dashboard.terminal.plot import Drawn, draw


def dots(text: str) -> set[tuple[int, int]]:
    """Return row and column of every dot of a chart, from the top left."""
    found = set()
    places = {
        0x01: (0, 0),
        0x02: (1, 0),
        0x04: (2, 0),
        0x40: (3, 0),
        0x08: (0, 1),
        0x10: (1, 1),
        0x20: (2, 1),
        0x80: (3, 1),
    }
    for row, line in enumerate(text.splitlines()[:-1]):
        for column, one in enumerate(line[11:]):
            bits = ord(one) - 0x2800
            found |= {(4 * row + y, 2 * column + x) for bit, (y, x) in places.items() if bits & bit}
    return found


def curve(x: list[float], y: list[float], colour: str = "#ff0000") -> Drawn:
    return Drawn(np.array(x, dtype=float), np.array(y, dtype=float), colour)


def test_a_line_goes_from_corner_to_corner_and_its_scale_is_beside_it() -> None:
    text = draw([curve([1, 100], [0, 50])], 31, 6)
    lines = text.plain.splitlines()
    assert [line[:11] for line in lines[:5]] == [
        "        50│",
        "          │",
        "        25│",
        "          │",
        "         0│",
    ]
    assert lines[5] == "          └1      step      100"
    assert {len(line) for line in lines} <= {31, 32}
    found = dots(text.plain)
    assert (19, 0) in found
    assert (0, 39) in found
    assert {column for _, column in found} == set(range(40)), "no gap"
    assert draw([curve([1, 100], [50, 0])], 31, 6).plain != text.plain


def test_the_middle_of_a_scale_as_wide_as_floats_is_a_number() -> None:
    largest = np.array([1e308, -1e308, 1e308])
    assert "∞" not in draw([Drawn(np.arange(3.0), largest, "red")], 60, 8).plain


def test_a_peak_of_one_row_in_a_long_curve_is_drawn() -> None:
    y = np.ones(100_000)
    y[70_000] = 9.0
    found = dots(draw([Drawn(np.arange(100_000.0), y, "red")], 111, 11).plain)
    top = [column for row, column in found if row == 0]
    assert top
    assert abs(np.mean(top) - 140) < 2


def test_each_curve_has_its_colour_and_the_first_is_above() -> None:
    text = draw(
        [curve([0, 1], [1, 1], "#111111"), curve([0, 1], [1, 1], "#222222"), curve([0, 1], [0, 0], "#333333")], 40, 8
    )
    assert {str(span.style) for span in text.spans} == {"dim", "#111111", "#333333"}


@pytest.mark.parametrize(
    "curves",
    [
        [],
        [curve([], [])],
        [curve([5], [5])],
        [curve([0, 1], [-1.7e308, 1.7e308])],
        [curve([0, 1, 2], [1e-320, 0, -1])],
        [curve([3, 3, 3], [1, 2, 3])],
    ],
)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("size", [(80, 12), (21, 4), (5, 2), (0, 0)])
def test_whatever_the_values_and_the_size_a_chart_fits(curves: list[Drawn], log: bool, size: tuple[int, int]) -> None:
    text = draw(curves, *size, log=log)
    assert len(text.plain.splitlines()) <= size[1]
    assert all(len(line) <= max(0, size[0]) + 1 for line in text.plain.splitlines())


def test_a_logarithmic_scale_leaves_out_what_has_no_logarithm() -> None:
    text = draw([curve([1, 2, 3], [0, 1, 100])], 40, 8, log=True)
    assert text.plain.splitlines()[0].startswith("       100│")
    assert text.plain.splitlines()[6].startswith("         1│")
