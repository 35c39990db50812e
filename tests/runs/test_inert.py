from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.runs.inert import format_json, inert

STEERING = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\link",
    "\x9b31m",
    "a\rb",
    "a\x08b",
    "\u202eabc",
    "\u2066abc\u2069",
    "zero\u200bwidth",
    "\ufeff",
    "\u2028",
    "\ud800",
    "\U000e0041",
    "\u3164",
    "\x7f",
    "\x00",
]


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str) -> None:
    shown = inert(text)
    assert "\\" in shown
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in shown)
    assert json.loads(format_json({text: [text]})) == {text: [text]}
    assert not any(one in format_json({text: text}) for one in "\x1b\x9b\r\x08\u202e\u200b\u2028\x7f\x00")


@pytest.mark.parametrize("text", ["plain", "é 中文 🙂 العربية", "[red]", "a\\b", ""])
def test_what_does_not_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


def test_line_breaks_stay_where_they_are_layout_and_not_within_a_name() -> None:
    assert inert("a\n\tb\r\n", lines=True) == "a\n\tb\\r\n"
    assert inert("a\nb") == "a\\nb"
    assert inert(3) == "3"


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists, max_leaves=9))
def test_json_is_read_back_the_same_and_can_always_be_printed(value: object) -> None:
    text = format_json(value)
    text.encode()
    assert json.loads(text) == value


def test_json_has_no_word_for_what_is_not_finite() -> None:
    assert format_json({"a": [float("nan"), float("inf")], "NaN": "Infinity"}, indent=None) == (
        '{"a": [null, 1e999], "NaN": "Infinity"}'
    )
