"""The recorded command of a run: what can be run again, and a sentence for what cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from darkit.errors import ConfigError
from darkit.reproduction.command import Command, read_command
from darkit.runs import Run


def run_of(folder: Path, command: Any, **trainer: Any) -> Run:
    (folder / "run.json").write_text(json.dumps({"command": command}))
    (folder / "trainer_config.json").write_text(json.dumps(trainer))
    return Run(folder)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["go.py", "--lr", "1"], Command("script", "go.py", ("--lr", "1"))),
        (["-u", "-X", "utf8", "go.py", "-m"], Command("script", "go.py", ("-m",), ("-u", "-X", "utf8"))),
        (["-m", "package.train", "x"], Command("module", "package.train", ("x",))),
        (["-c", "print()"], Command("code", "print()", ())),
        (["-m", "darkit", "train", "a=1"], Command("train", "", ("a=1",))),
        (["-m", "darkit.train", "a=1"], Command("train", "", ("a=1",))),
        (["/x/bin/darkit", "train", "a=1"], Command("train", "", ("a=1",))),
        (["/x/bin/darkit", "sweep", "a=1"], Command("script", "/x/bin/darkit", ("sweep", "a=1"))),
    ],
)
def test_a_command_is_taken_apart(words: list[str], expected: Command, tmp_path: Path) -> None:
    assert read_command(run_of(tmp_path, ["python", *words])) == expected


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (None, "did not record its command"),
        (["python", 3], "did not record its command"),
        (["python"], "at a prompt or by a script from stdin"),
        (["python", "-u", "-"], "at a prompt or by a script from stdin"),
        (["python", "-m", "ipykernel_launcher", "-f", "x.json"], "in a notebook"),
        (["python", "/x/colab_kernel_launcher.py"], "in a notebook"),
        (["python", "-m", "torch.distributed.run", "go.py"], "starts processes of its own"),
    ],
)
def test_what_cannot_be_run_again_is_said(command: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        read_command(run_of(tmp_path, command))


def test_several_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="several processes"):
        read_command(run_of(tmp_path, ["python", "go.py"], device_num=2))
