"""Several processes with a `RunRecorder`: they agree on the run, and resume as many as they were."""

from __future__ import annotations

import os
from pathlib import Path

import lightning
import pytest

import darkit
from darkit.errors import ConfigError
from tests.children import Zygote
from tests.engine.native.modules import Base, train_loader
from tests.engine.ranks import end_of, start_ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*:lightning.fabric.utilities.warnings.PossibleUserWarning")


def record(name: str, steps: int, ranks: int) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=steps,
        use_distributed_sampler=False,
        callbacks=[darkit.RunRecorder(name, resume="auto")],
        **quiet,
    )
    trainer.fit(Base(), train_loader())


def in_other_homes(ranks: int) -> None:
    """Resume a run of one process, which is refused, and then one that only the first process finds."""
    record("pair", 2, ranks)
    try:
        record("single", 4, ranks)
    except ConfigError as error:
        print(f"refused: {error}", flush=True)
    if int(os.environ["RANK"]):
        os.environ["DARWIN_KIT_HOME"] += "-of-another-machine"
    record("pair", 4, ranks)


def test_other_numbers_of_processes_and_other_homes_are_refused_in_a_sentence(zygote: Zygote, home: Path) -> None:
    record("single", 2, 1)
    children = start_ranks(zygote, home, in_other_homes, processes=2, ranks=2)
    codes = end_of(children, 60)
    said = [child.output for child in children]
    assert 0 not in codes, said
    for output in said:
        assert "random generators of one process, which Lightning's own loop cannot divide over 2 processes" in output
    assert "Process 0 trains the run 'pair' from step 2, but process 1 finds 'pair' at step 0" in said[1]
    assert darkit.load("single").checkpoints()[-1].step == 2
    assert darkit.load("pair").checkpoints()[-1].step == 2
