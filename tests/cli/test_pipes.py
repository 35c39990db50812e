"""Commands whose standard output or standard error is closed, as behind ``head``, succeed."""

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
def _restored_loggers() -> Iterator[None]:
    """Restore the settings of logging, which Hydra's flags change for the whole process."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@contextmanager
def closed_stream(stream: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the process a stream whose reader has closed it; at the end, flush it as a process does."""
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
def test_a_closed_output_is_not_an_error(
    words: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code: object = 0
    with closed_stream("stdout", monkeypatch):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    assert code in (0, None)
    assert capsys.readouterr().err == ""


def test_a_training_with_a_closed_output_succeeds_and_so_do_later_ones(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closed_stream("stdout", monkeypatch):
        assert main([*NUMBERS, "-m", "name=one,two"]) == 0
    assert [load(name).status for name in ("one", "two")] == ["finished", "finished"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_training_with_a_closed_error_output_succeeds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_stream("stderr", monkeypatch):
        assert main([*NUMBERS, "name=one"]) == 0
        assert main(["train", "resume=one", "trainer.max_step=6"]) == 0
        assert main([*NUMBERS, "name=one"]) == 2
    assert load("one").status == "finished"


def test_the_exit_code_does_not_depend_on_the_output(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = next((runs / "numbers").glob("iter-*-ckpt.pth"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with closed_stream("stdout", monkeypatch):
        assert main(["verify", "numbers"]) == 1


def test_errors_and_warnings_to_a_closed_output_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(), closed_stream("stderr", monkeypatch):
        warnings.simplefilter("always")
        show_warnings()
        print_error(ConfigError("It is wrong."))
        warnings.warn("It is odd.", stacklevel=1)


def test_a_crash_with_a_closed_output_has_a_failure_exit_code(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaking.py").write_text("def data():\n    raise KeyError('odd')\n")
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "odd.yaml").write_text("_target_: breaking.data\n")
    with closed_stream("stderr", monkeypatch), closed_stream("stdout", monkeypatch):
        assert main(["train", "model=mymodel", "data=odd"]) in (1, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["show", "numbers"], ["show", "numbers", "--json"], ["train", "--cfg", "job"]])
def test_output_to_a_full_disk_is_a_storage_error(
    words: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert main(words) == 2
    assert capsys.readouterr().err == "Error: Cannot write to standard output: No space left on device.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_training_with_output_to_a_full_disk_succeeds_with_an_error_message(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert main([*NUMBERS, "name=one"]) == 0
    assert load("one").status == "finished"
    assert "Error: Cannot write to standard output: No space left on device." in capsys.readouterr().err
