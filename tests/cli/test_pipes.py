"""Standard output and standard error that nobody reads any more, as behind ``head``: no error for any command."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from darkit.cli.errors import print_error, show_warnings
from darkit.cli.main import main
from darkit.errors import ConfigError
from darkit.runs import load
from tests.cli.parts import NUMBERS


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """What Hydra's flags make of logging lasts as long as their process."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@contextmanager
def nobody_reads(stream: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives the process a stream whose reader has gone; what is left in it is written, as at the end of a process."""
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patch:
        file = os.fdopen(writer, "w")
        patch.setattr(sys, stream, file)
        yield
        with contextlib.suppress(BrokenPipeError) if stream == "stderr" else contextlib.nullcontext():
            file.close()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["--version"],
        ["runs"],
        ["runs", "--json"],
        ["runs", "--help"],
        ["show", "numbers"],
        ["show", "numbers", "--json"],
        ["data", "show"],
        ["verify", "numbers"],
        ["eval", "numbers"],
        ["predict", "text", "The ", "--max-new-tokens", "5"],
        ["train", "--help"],
        ["train", "--cfg", "job"],
        ["train", "--version"],
    ],
    ids=" ".join,
)
def test_a_closed_output_is_no_error(
    words: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code: object = 0
    with nobody_reads("stdout", monkeypatch):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    assert code in (0, None)
    assert capsys.readouterr().err == ""


def test_a_training_whose_report_nobody_reads_ends_well_and_so_do_those_after_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with nobody_reads("stdout", monkeypatch):
        assert main([*NUMBERS, "-m", "name=one,two"]) == 0
    assert [load(name).status for name in ("one", "two")] == ["finished", "finished"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_training_whose_progress_and_errors_nobody_reads_ends_well(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nobody_reads("stderr", monkeypatch):
        assert main([*NUMBERS, "name=one"]) == 0
        assert main(["train", "resume=one", "trainer.max_step=6"]) == 0
        assert main([*NUMBERS, "name=one"]) == 2
    assert load("one").status == "finished"


def test_what_a_command_found_is_its_exit_code_though_nobody_reads_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = next((runs / "numbers").glob("iter-*-ckpt.pth"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with nobody_reads("stdout", monkeypatch):
        assert main(["verify", "numbers"]) == 1


def test_errors_and_warnings_to_nobody_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(), nobody_reads("stderr", monkeypatch):
        warnings.simplefilter("always")
        show_warnings()
        print_error(ConfigError("It is wrong."))
        warnings.warn("It is odd.", stacklevel=1)


def test_a_crash_that_nobody_reads_of_is_not_taken_for_success(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaking.py").write_text("def data():\n    raise KeyError('odd')\n")
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "odd.yaml").write_text("_target_: breaking.data\n")
    with nobody_reads("stderr", monkeypatch), nobody_reads("stdout", monkeypatch):
        assert main(["train", "model=mymodel", "data=odd"]) in (1, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["show", "numbers"], ["show", "numbers", "--json"], ["train", "--cfg", "job"]])
def test_output_to_a_full_disk_is_one_sentence(
    words: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert main(words) == 2
    assert capsys.readouterr().err == "Error: Cannot write to standard output: No space left on device.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_training_whose_report_finds_a_full_disk_ends_well_and_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert main([*NUMBERS, "name=one"]) == 0
    assert load("one").status == "finished"
    assert "Error: Cannot write to standard output: No space left on device." in capsys.readouterr().err
