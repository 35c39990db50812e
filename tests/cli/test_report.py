"""``darkit report``: runs as one page in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.parts import done, refused
from tests.dashboard.parts import make_run


def test_what_cannot_be_reported_is_refused_and_nothing_is_written(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(home / "base", "one", 10)
    out = tmp_path / "report.html"
    assert "There is no run 'two'" in refused(capsys, "report", "one", "two", "-o", str(out))
    assert not out.exists()
    out.write_text("mine")
    assert "already exists" in refused(capsys, "report", "one", "-o", str(out))
    assert out.read_text() == "mine"
    done(capsys, "report", "one", "-o", str(out), "--force", "--language", "zh")
    assert 'lang="zh"' in out.read_text()
    with pytest.raises(SystemExit):
        done(capsys, "report", "one", "-o", str(out), "--smooth", "2")
    assert "a weight is a number from 0 to 0.9999" in capsys.readouterr().err
