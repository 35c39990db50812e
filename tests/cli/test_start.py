"""``darkit start``, until there is a dashboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.parts import refused


def test_it_says_what_can_be_done_instead(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "start")
    assert "darkit runs" in said
    assert f"tensorboard --logdir {home / 'base'}" in said
