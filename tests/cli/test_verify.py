"""``darkit verify``: a row for each checkpoint, and an exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from darkit.cli.main import main
from tests.cli.parts import done, names, refused


def rows(out: str) -> list[str]:
    return [re.sub(" +", " ", line).strip() for line in out.splitlines()]


def test_a_whole_run_is_verified_and_nothing_is_written(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(runs / "numbers")
    lines = rows(done(capsys, "verify", "numbers"))
    assert lines[0] == "checkpoint size result"
    assert [re.sub(r" \S+ \w*B ", " ", line) for line in lines[1:]] == [
        "iter-2-ckpt verified",
        "iter-4-ckpt verified",
    ]
    assert names(runs / "numbers") == before


def test_a_damaged_one_is_named_with_its_damage_and_the_code_is_one(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "numbers" / "iter-2-ckpt.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    cut = runs / "numbers" / "iter-4-ckpt.pth"
    cut.write_bytes(cut.read_bytes()[:-7])
    assert main(["verify", "numbers"]) == 1
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "damaged: its sha256 is not the one in its manifest" in out
    assert "bytes where its manifest says" in out


def test_one_without_a_manifest_is_no_failure_but_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "numbers" / "iter-2-ckpt.json").unlink()
    assert "whole by its CRCs, but it has no manifest" in done(capsys, "verify", "numbers")


def test_a_run_without_checkpoints_has_nothing_to_fail(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (runs / "numbers").glob("iter-*"):
        path.unlink()
    assert done(capsys, "verify", "numbers") == "The run 'numbers' has no checkpoint yet.\n"


def test_a_run_that_is_not_there_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no run 'nope'" in refused(capsys, "verify", "nope")
