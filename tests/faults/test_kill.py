"""Killed without warning at any moment: nothing finished is lost, and every run goes on."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.runs.lock import is_locked
from tests.children import Zygote
from tests.faults.parts import finished, problems, state, temporary_files, training, wait_until

WIDE = 300  # about 1 MB of state, so that a save takes a while


def wait_for_more(run: Path, before: int) -> None:
    wait_until(lambda: max(finished(run), default=0) > before, f"a checkpoint after step {before}")


def disturb(zygote: Zygote, home: Path, times: int) -> None:
    """Kill a training again and again, half of the times while it saves, and look at what is left."""
    chosen = random.Random(times)
    run = home / "base" / "run"
    for case in range(times):
        child = zygote.run(training(WIDE, save_step_interval=5, keep_last=20), home)
        wait_for_more(run, max(finished(run), default=0))
        if case % 2:
            wait_until(lambda: temporary_files(run), "a save")
        else:
            time.sleep(chosen.uniform(0, 0.05))  # the random moment is the point
        promised = finished(run)
        child.kill_group()
        kept = finished(run)
        assert max(kept) >= max(promised)
        assert len(promised - kept) <= 1, "only the one that was just superseded may be gone"
        assert problems(run) == []
        checkpoint, content = read_run_checkpoint(run)
        assert checkpoint.step == max(kept) == content["current_step"]
        assert state(run) == "crashed"
    child = zygote.run(training(WIDE, max_step=max(finished(run)) + 3, keep_last=20), home)
    assert child.wait() == 0, child.output
    assert state(run) == "finished"
    assert temporary_files(run) == []


def test_thirty_kills_lose_nothing(zygote: Zygote, home: Path) -> None:
    disturb(zygote, home, 30)


@pytest.mark.soak
def test_three_hundred_kills_lose_nothing(zygote: Zygote, home: Path) -> None:
    disturb(zygote, home, 300)


def test_workers_that_outlive_a_killed_trainer_do_not_keep_its_lock(zygote: Zygote, home: Path) -> None:
    child = zygote.run(training(num_workers=4), home)
    run = home / "base" / "run"
    wait_until(lambda: finished(run), child.output)
    assert is_locked(run)
    child.send(9)  # type: ignore[arg-type] - the trainer alone
    child.wait()
    wait_until(lambda: not is_locked(run), "a free lock", limit=5)
    assert state(run) == "crashed"


def test_of_many_starts_under_one_name_one_runs_and_the_others_change_nothing(zygote: Zygote, home: Path) -> None:
    code = """
import time, os, torch, darkit
from darkit.errors import RunExistsError
while not os.path.exists({gate!r}): time.sleep(0.001)
model = torch.nn.Linear(8, 1)
x = torch.randn(16, 8)
try:
    darkit.fit(model, (x, x.sum(1, keepdim=True)), loss=torch.nn.functional.mse_loss, name="one", max_step=3,
               device="cpu", tensorboard=False)
except RunExistsError as error:
    assert "'one'" in str(error)
    raise SystemExit(3)
"""
    gate = home.parent / "gate"
    children = [zygote.run(code.format(gate=str(gate)), home) for _ in range(16)]
    gate.touch()
    codes = [child.wait() for child in children]
    assert sorted(codes) == [0] + [3] * 15
    run = home / "base" / "one"
    assert state(run) == "finished"
    assert sorted(path.name for path in run.parent.iterdir()) == ["one"]
    assert (run / "train_log.csv").read_text().count("\n") == 4
    assert finished(run) == {3}
    assert problems(run) == []
