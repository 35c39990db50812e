"""Words that make small trainings, and what is said when they end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from darkit.cli.main import main

NUMBERS = ("train", "model=mymodel", "data.samples=64", "data.val_samples=8", "trainer.max_step=4")
TEXT = (
    "train",
    "data.context_length=16",
    "data.vocab_size=300",
    "model.config.num_layers=1",
    "model.config.num_heads=2",
    "model.config.hidden_size=16",
    "trainer.batch_size=2",
    "trainer.max_step=4",
    "trainer.eval_iters=2",
    "trainer.eval_step_interval=2",
    "trainer.save_step_interval=2",
    "trainer.log_step_interval=1",
)

MODEL = """import torch
class Model(torch.nn.Linear):
    def __init__(self, size=12):
        super().__init__(size, size)
"""


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with 2, one sentence on standard error and nothing else; return the sentence."""
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    lines = [line for line in err.splitlines() if not re.match(r"step \d+/", line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def done(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end well; return what it printed to standard output."""
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def names(folder: Path) -> set[str]:
    """Return what is in a folder, which need not be there."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def write(path: Path, text: str) -> None:
    """Write a file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
