"""A file system that refuses in the middle: one typed error, `crashed`, no temporary file, old files whole.

A limit on the size of files stands for the full disk: it works for every user and on every file system.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import darkit
from darkit.engine.checkpoints.checkpoint import read_checkpoint

SCRIPT = """
import resource, sys, time, lightning
from darkit.runs import base
from darkit.errors import StorageError
from tests.engine.parts import made, train, xy
manifest = base() / "full" / "iter-2-ckpt.json"
class Fill(lightning.Callback):
    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step == 3:
            while {interval} == 2 and not manifest.exists():
                time.sleep(0.01)  # until the first checkpoint is durable; the process has a time limit
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    train(made(hidden={hidden}), xy(), name="full", max_step={steps}, save_step_interval={interval}, callbacks=[Fill()])
except StorageError as error:
    print(str(error))
    sys.exit(7)
"""


def fill(python: str, home: Path, **settings: int) -> tuple[str, darkit.Run]:
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home), "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", SCRIPT.format(**settings)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    return done.stdout.strip(), darkit.load("full")


@pytest.mark.parametrize("interval", [2, 5], ids=["in the middle", "at the end"])
def test_during_a_checkpoint_the_one_before_stays_whole_and_nothing_half_is_left(
    python: str, home: Path, interval: int
) -> None:
    said, run = fill(python, home, limit=65536, hidden=8000, steps=6, interval=interval)
    assert "iter-" in said
    assert "\n" not in said
    assert "too large" in said.lower()
    assert run.status == "crashed"
    assert "StorageError" in run.details.reason
    assert "Traceback" in run.details.traceback
    names = {path.name for path in run.path.iterdir()}
    assert not [name for name in names if "tmp" in name]
    kept = run.checkpoints()
    assert [checkpoint.step for checkpoint in kept] == ([2] if interval == 2 else [])
    for checkpoint in kept:
        assert checkpoint.size > 65536
        assert read_checkpoint(checkpoint)["current_step"] == checkpoint.step
    rows = run.log()["step"].to_list()
    assert rows == list(range(1, len(rows) + 1))
    assert len(rows) >= interval


def test_during_the_log_earlier_rows_stay_whole_and_the_run_records_why_it_ended(python: str, home: Path) -> None:
    said, run = fill(python, home, limit=32768, hidden=8, steps=20000, interval=0)
    assert "train_log.csv" in said
    assert run.status == "crashed"
    assert "train_log.csv" in run.details.reason
    rows = run.log()["step"].to_list()
    assert rows == list(range(1, len(rows) + 1))
    assert len(rows) > 100
    assert not [path for path in run.path.iterdir() if "tmp" in path.name]
