from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.parts import Zygote


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("output")) as started:
        yield started
