"""What all tests share: a home of their own, and no advice on the screen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The machine may be busy: how long an example takes says nothing about the code.
settings.register_profile(
    "darkit", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("darkit")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A darkit home that nobody else uses; no test may touch the person's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("DARWIN_KIT_HOME", str(folder))
    monkeypatch.delenv("DSPIKE_HOME", raising=False)
    monkeypatch.delenv("DARKIT_RUN_NAME", raising=False)
    return folder
