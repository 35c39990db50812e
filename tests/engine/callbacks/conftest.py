"""A stock trainer warns of what is not these tests' business, such as few workers."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:::lightning"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a callback alone writes; it makes the folder itself."""
    return tmp_path / "somewhere" / "run"
