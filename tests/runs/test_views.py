"""Saved views of the table of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from darkit.errors import ConfigError
from darkit.runs.views import LONGEST_ADDRESS, MOST, VIEWS, read_views, save_view


def test_a_view_is_saved_replaced_and_removed(tmp_path: Path) -> None:
    assert read_views(tmp_path) == {}
    assert save_view(tmp_path, " paper \n runs ", "q=tag%3Apaper") == {"paper runs": "q=tag%3Apaper"}
    assert save_view(tmp_path, "paper runs", "q=x") == read_views(tmp_path) == {"paper runs": "q=x"}
    save_view(tmp_path, "other", "")
    assert list(read_views(tmp_path)) == ["paper runs", "other"]
    assert save_view(tmp_path, "paper runs", None) == {"other": ""}
    assert sorted(path.name for path in tmp_path.iterdir()) == [VIEWS]


def test_what_cannot_be_read_is_neither_shown_nor_overwritten(tmp_path: Path) -> None:
    (tmp_path / VIEWS).write_text('{"good": "q=1", "bad": 3, "": "q=2", "long": "' + "x" * (LONGEST_ADDRESS + 1) + '"}')
    assert read_views(tmp_path) == {"good": "q=1"}
    there = json.loads((tmp_path / VIEWS).read_text())
    assert save_view(tmp_path, "new", "q=3") == {"good": "q=1", "new": "q=3"}
    assert json.loads((tmp_path / VIEWS).read_text()) == {**there, "new": "q=3"}, "what is no view was lost"
    (tmp_path / VIEWS).write_text('{"good": "q=1"')
    assert read_views(tmp_path) == {}
    with pytest.raises(ConfigError, match="stay as they are"):
        save_view(tmp_path, "new", "q=3")
    assert (tmp_path / VIEWS).read_text() == '{"good": "q=1"'


@pytest.mark.parametrize(
    ("name", "address"), [("", "q"), ("  ", "q"), ("n" * 61, "q"), ("a", "x" * (LONGEST_ADDRESS + 1))]
)
def test_what_is_empty_or_too_long_is_refused(tmp_path: Path, name: str, address: str) -> None:
    with pytest.raises(ConfigError):
        save_view(tmp_path, name, address)
    assert not (tmp_path / VIEWS).exists()


def test_there_are_not_endlessly_many(tmp_path: Path) -> None:
    for number in range(MOST):
        save_view(tmp_path, f"view {number}", "q=1")
    with pytest.raises(ConfigError, match="remove one first"):
        save_view(tmp_path, "one more", "q=1")
    assert len(save_view(tmp_path, "view 3", "q=2")) == MOST
