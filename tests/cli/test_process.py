"""The command line as processes: exit codes, streams, the terminal and Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from darkit.runs import load
from tests.children import Zygote
from tests.cli.parts import NUMBERS, names

DARKIT = Path(sys.executable).with_name("darkit")
QUICK = (*NUMBERS[1:], "trainer.log_step_interval=2")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_python_m_darkit_train_prints_the_report_to_standard_output_and_progress_to_standard_error(
    empty: Path, home: Path
) -> None:
    command = [sys.executable, "-m", "darkit.cli.train", *QUICK, "name=x"]
    result = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("x: finished at step 4 of 4\n")
    assert [line.split()[:2] for line in result.stderr.splitlines()] == [["step", "2/4"], ["step", "4/4"]]
    assert load("x").info["command"][1:] == ["-m", "darkit.cli.train", *QUICK, "name=x"]
    assert names(empty) == set()


@pytest.mark.parametrize("command", ["darkit", "DarwinKit"])
def test_both_commands_refuse_a_mistake_with_exit_code_2_and_one_sentence(
    command: str, empty: Path, home: Path
) -> None:
    words = [DARKIT.with_name(command), "train", "trainer.max_stepz=10"]
    result = subprocess.run(words, cwd=empty, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"Error: Unknown setting 'trainer\.max_stepz'\. Did you mean 'max_step'\?.*\n", result.stderr)
    assert not home.exists()


def test_on_a_terminal_there_is_a_bar_and_nothing_is_cut(zygote: Zygote, empty: Path, home: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm-256color"}
    words = [
        zygote.darkit,
        "train",
        *QUICK,
        "name=a-name-that-is-rather-long-for-a-line-of-eighty-characters-as-one-sees",
    ]
    with subprocess.Popen(words, cwd=empty, env=environment, stdout=theirs, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # the last one who wrote has gone
                break
            if not block:
                break
            shown += block
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    bar = text.replace("\r", "\n").split("a-name-that")[0].strip().splitlines()[-1]
    assert re.match(r" *4/4 .*train \S+ val \S+ +(\d+\.\d steps/s)? +left (-:--:--|\d:\d\d)$", bar), bar
    assert "…" not in text
    assert f"train resume={words[-1].removeprefix('name=')} trainer.max_step=8" in text


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_asked_to_stop_says_how_to_resume(
    python: str, sent: signal.Signals, code: int, empty: Path, home: Path
) -> None:
    words = [python, "-m", "darkit.cli.train", *NUMBERS[1:], "name=x", "trainer.max_step=1000000"]
    with subprocess.Popen(words, cwd=empty, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("step 10/")
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    run = load("x")
    assert run.status == "stopped"
    first, second = err.splitlines()[-2:]
    assert first == f"x: stopped at step {run.details.step} of 1000000; resume with"
    assert re.fullmatch(r"  \S*darkit train resume=x", second)
    found = run.latest_checkpoint()
    assert found is not None
    assert found.step == run.details.step


@pytest.mark.parametrize("words", [("runs",), ("train", "--info"), ("train", "--help")])
def test_output_that_nobody_reads_any_more_is_no_error(words: tuple[str, ...], trained: Path, empty: Path) -> None:
    environment = os.environ | {"DARWIN_KIT_HOME": str(trained.parent)}
    with subprocess.Popen(
        [DARKIT, *words], cwd=empty, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
    assert process.returncode == 0
