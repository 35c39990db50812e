"""The dashboard beside a training: there if it can be, and no reason not to train if it cannot."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from darkit.core.server import start_dashboard
from darkit.dashboard.server.serve import stop


def test_a_home_has_one_dashboard_and_a_used_port_is_no_hindrance(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it already, which does as well
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        address = start_dashboard()
        try:
            assert address.startswith("http://127.0.0.1:")
            assert ":8000/" not in address
            assert start_dashboard() == address
        finally:
            assert stop(home) == address
    assert capsys.readouterr().out.splitlines() == [f"The dashboard is at {address}"] * 2


def test_a_dashboard_that_cannot_be_served_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path / "a file"))
    with pytest.warns(UserWarning, match=r"could not be started\. .*a file"):
        assert start_dashboard() == ""
