"""A run on text and one on numbers, trained once; each test gets copies that it may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from darkit.cli.main import main
from tests.cli.parts import NUMBERS, TEXT


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the two runs, called ``text`` and ``numbers``."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARWIN_KIT_HOME", str(folder))
        assert main([*TEXT, "name=text"]) == 0
        assert main([*NUMBERS, "name=numbers", "trainer.save_step_interval=2", "trainer.log_step_interval=1"]) == 0
    return folder / "base"


@pytest.fixture
def runs(trained: Path, home: Path) -> Path:
    """Copies of both, in the home of this test."""
    shutil.copytree(trained, home / "base")
    return home / "base"
