"""What the tests of the guide's API share."""

from __future__ import annotations

import pytest

from darkit.core import Predicter, Trainer


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test registers, no other one finds."""
    monkeypatch.setattr(Trainer, "_registry", {})
    monkeypatch.setattr(Predicter, "_registry", {})
