"""One warm process for all fault tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.parts import Zygote


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("output")) as started:
        yield started


@pytest.fixture
def zygote(warm: Zygote) -> Iterator[Zygote]:
    """Forks children; what a test left behind is ended after it."""
    yield warm
    warm.end_children()
