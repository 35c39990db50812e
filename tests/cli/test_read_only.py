"""A home that can be read and not written to: every command says so in a sentence, after what it has found out."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import darkit
from darkit.cli.main import main
from darkit.dashboard.server.place import FOLDER
from darkit.errors import StorageError
from tests.cli.parts import refused
from tests.engine.parts import made, train, xy


@pytest.fixture
def read_only(home: Path) -> Iterator[Path]:
    """A home with a run, on a file system that is mounted read-only; where nobody may mount, the tests are skipped."""
    home.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=False).returncode:
        pytest.skip("only the superuser may mount")
    try:
        train(made(), xy(), name="kept", max_step=2)
        (home / FOLDER).mkdir()  # of a server that ran when it could be written to
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        yield home
    finally:
        subprocess.run(["umount", str(home)], check=True)


@pytest.mark.parametrize(
    "words",
    [
        ["start", "--port", "0"],
        ["start", "--port", "0", "--daemon"],
        ["train", "data=digits", "model=mlp", "name=new", "trainer.max_step=2", "trainer.device=cpu"],
        ["stop", "kept"],
        ["stop-server"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_that_write_say_in_a_sentence_that_they_cannot(
    words: list[str], read_only: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capfd.readouterr().err
    assert "Traceback" not in told
    errors = [line for line in told.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, told
    assert str(read_only) in errors[0] or words[0] == "stop"


def test_eval_shows_its_result_and_then_says_that_it_is_not_noted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "data=digits", "model=mlp", "name=a", "trainer.max_step=2", "trainer.device=cpu"]) == 0
    capsys.readouterr()

    def refuse(path: Path, data: bytes) -> None:
        raise StorageError(errno.EROFS, f"Cannot write {path}: Read-only file system.")

    monkeypatch.setattr("darkit.runs.files.write_bytes", refuse)
    assert main(["eval", "a", "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("a:iter-2-ckpt on the run's own data")
    assert "accuracy" in out
    assert err.startswith("Error: Cannot write ")
    assert "Read-only file system" in err


def test_reading_needs_nothing_written(read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["runs"], ["show", "kept"], ["verify", "kept"], ["predict", "kept", "[[1, 2, 3, 4]]"]):
        assert main(words) == 0, words
    assert darkit.load("kept").status == "finished"
    with pytest.raises(StorageError, match="Read-only file system"):
        train(made(), xy(), resume="kept", max_step=4)
    assert "no run 'gone'" in refused(capsys, "eval", "gone").lower()
