from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import Run, files
from darkit.runs.checkpoints import checkpoint_path, checkpoint_steps, manifest_path
from darkit.runs.lock import RunLock
from darkit.runs.notes import Notes, write_notes
from darkit.runs.prune import Policy, carry_out, last_change, plan
from darkit.runs.trash import list_trash

DAY = 86400.0
OLD = Policy(30 * DAY)


def _archive() -> bytes:
    """The smallest archive without compression, of 100 bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", b"")
    return content.getvalue()


GOOD = _archive()


def make(root: Path, name: str, losses: dict[int, float | None], *, days: float = 40, **trainer: Any) -> Run:
    """A finished run with checkpoints of these steps and losses, that has rested for some days."""
    folder = root / name
    folder.mkdir(parents=True)
    then = time.time() - days * DAY
    files.write_json(folder / files.RUN, {"id": name})
    files.write_json(folder / files.TRAINER_CONFIG, {"monitor": "val_loss", "mode": "min", **trainer})
    files.write_json(folder / files.STATUS, {"state": "finished", "heartbeat": then})
    (folder / files.LOG).write_text("step,val_loss\n")
    for step, loss in losses.items():
        path = checkpoint_path(folder, step)
        path.write_bytes(GOOD)
        metrics = {} if loss is None else {trainer.get("monitor", "val_loss"): loss}
        files.write_json(
            manifest_path(path), {"size": 100, "sha256": hashlib.sha256(GOOD).hexdigest(), "metrics": metrics}
        )
    for path in folder.iterdir():
        os.utime(path, (then, then))
    return Run(folder)


def left(run: Run, policy: Policy) -> list[int]:
    carry_out(plan(run, policy), policy)
    for path in run.path.glob("iter-*.json"):
        assert path.with_suffix(".pth").exists()  # no manifest without its file
    return checkpoint_steps(run.path)


def test_the_last_and_the_best_of_an_old_run_stay(home: Path) -> None:
    losses: dict[int, float | None] = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}
    root = home / "base"
    planned = plan(make(root, "a", losses), OLD)
    assert ([checkpoint.step for checkpoint in planned.checkpoints], planned.bytes) == ([1, 2, 3], 300)
    assert left(make(root, "b", losses), OLD) == [4]
    assert left(make(root, "c", losses), replace(OLD, keep_best=1)) == [2, 4]
    assert left(make(root, "d", losses), replace(OLD, keep_last=2)) == [3, 4]
    assert left(make(root, "e", losses, mode="max"), replace(OLD, keep_best=1)) == [1, 4]
    assert left(make(root, "f", losses, monitor="accuracy", mode=None), replace(OLD, keep_best=1)) == [1, 4]


def test_checkpoints_that_cannot_be_compared_stay_while_the_best_is_asked_for(home: Path) -> None:
    run = make(home / "base", "a", {1: None, 2: None, 3: None})
    assert left(run, replace(OLD, keep_best=1)) == [1, 2, 3]


def test_young_running_and_kept_runs_are_not_touched(home: Path) -> None:
    root, losses = home / "base", {1: 1.0, 2: 2.0}
    young = make(root, "young", losses, days=29)
    assert plan(young, OLD).kept == "it is younger"
    kept = make(root, "kept", losses)
    write_notes(kept.path, Notes(tags=("Keep",)))
    assert plan(kept, OLD).kept == "it is tagged 'keep'"
    running = make(root, "running", losses)
    lock = RunLock(running.path)
    assert plan(running, OLD).kept == "it is running"
    lock.release()
    elsewhere = make(root, "elsewhere", losses)
    status = {"state": "running", "host": "elsewhere", "heartbeat": time.time()}
    files.write_json(elsewhere.path / files.STATUS, status)
    assert plan(elsewhere, replace(OLD, older_than=0)).kept == "it is running"
    broken = make(root, "broken", losses)
    (broken.path / files.NOTES).write_text("{")
    assert plan(broken, OLD).kept.startswith("its notes cannot be read")
    for run in (young, kept, running, elsewhere, broken):
        assert checkpoint_steps(run.path) == [1, 2]


def test_a_run_that_changes_after_it_was_planned_is_decided_again(home: Path) -> None:
    root, losses = home / "base", {1: 1.0, 2: 2.0}
    run = make(root, "a", losses)
    planned = plan(run, OLD)
    lock = RunLock(run.path)  # it is resumed
    assert carry_out(planned, OLD).kept == "it is running"
    lock.release()
    os.utime(run.path / files.LOG)  # it was resumed, and has ended
    assert carry_out(planned, OLD).kept == "it is younger"
    assert checkpoint_steps(run.path) == [1, 2]
    young = plan(make(root, "b", losses), replace(OLD, keep_last=1))
    path = checkpoint_path(young.folder, 3)
    path.write_bytes(GOOD)
    os.utime(path, (1, 1))
    done = carry_out(young, OLD)
    assert [checkpoint.step for checkpoint in done.checkpoints] == [1]  # 2 became superseded too, but nobody agreed
    # the plan had named 1 only: 2 was the last one then
    assert checkpoint_steps(young.folder) == [2, 3]


def test_whole_runs_move_to_the_trash(home: Path) -> None:
    root, policy = home / "base", replace(OLD, whole_runs=True)
    run = make(root, "a", {1: 1.0})
    planned = plan(run, policy)
    assert planned.bytes > 100
    assert carry_out(planned, policy).kept == ""
    assert not run.path.exists()
    assert [one.name for one in list_trash(root)] == ["a"]


@pytest.mark.parametrize("file", [files.LOG, "iter-1-ckpt.pth", files.STATUS])
def test_the_age_counts_from_what_was_last_saved_or_logged(home: Path, file: str) -> None:
    run = make(home / "base", "a", {1: 1.0})
    assert time.time() - last_change(run.path, run.checkpoints()) == pytest.approx(40 * DAY, rel=1e-3)
    os.utime(run.path / file)
    assert time.time() - last_change(run.path, run.checkpoints()) < DAY


def test_a_checkpoint_that_is_a_folder_goes_whole(home: Path) -> None:
    run = make(home / "base", "a", {4: 1.0})
    for step in (2, 3):
        folder = run.path / f"iter-{step}-ckpt"
        folder.mkdir()
        (folder / "part").write_bytes(b"x" * 70)
        size = {"size": 70, "sha256": "0", "metrics": {"val_loss": float(step)}}
        files.write_json(run.path / f"iter-{step}-ckpt.json", size)
        for path in (folder, folder / "part"):
            os.utime(path, (1, 1))
    planned = plan(run, OLD)
    assert [checkpoint.step for checkpoint in planned.checkpoints] == [2, 3]
    assert checkpoint_steps(run.path) == [2, 3, 4]
    carry_out(planned, OLD)
    assert {path.name for path in run.path.glob("iter-*")} == {"iter-4-ckpt.pth", "iter-4-ckpt.json"}


def damage(run: Run, *steps: int) -> None:
    """Flip one bit of checkpoints, which changes neither their sizes nor their times."""
    for step in steps:
        path = checkpoint_path(run.path, step)
        times = path.stat()
        path.write_bytes(bytes([GOOD[0] ^ 1]) + GOOD[1:])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_damaged_checkpoint_takes_no_place_of_a_good_one(home: Path) -> None:
    root, losses = home / "base", {2: 1.0, 4: 2.0, 6: 3.0}
    last = make(root, "last", losses)
    damage(last, 6)
    planned = plan(last, OLD)
    assert [checkpoint.step for checkpoint in planned.checkpoints] == [2, 4]
    done = carry_out(planned, OLD)
    assert ([checkpoint.step for checkpoint in done.checkpoints], done.bytes) == ([2], 100)
    assert done.damaged == ("iter-6-ckpt",)
    assert checkpoint_steps(last.path) == [4, 6]  # 6 goes with the next plan at the earliest: it was not shown
    two = make(root, "two", losses)
    damage(two, 4, 6)
    assert left(two, OLD) == [2, 6]
    best = make(root, "best", {2: 1.0, 4: 2.0, 6: 3.0, 8: 4.0})
    damage(best, 2)
    assert left(best, replace(OLD, keep_best=1)) == [2, 4, 8]
    every = make(root, "every", losses)
    damage(every, 2, 4, 6)
    kept = carry_out(plan(every, OLD), OLD)
    assert kept.kept == "all of its checkpoints are damaged"
    assert checkpoint_steps(every.path) == [2, 4, 6]
    short = make(root, "short", losses)
    for step in losses:
        checkpoint_path(short.path, step).write_bytes(GOOD[:-1])
        os.utime(checkpoint_path(short.path, step), (1, 1))
    assert plan(short, OLD).kept == "all of its checkpoints are damaged"
    enough = make(root, "enough", losses)
    damage(enough, 4, 6)
    assert carry_out(plan(enough, replace(OLD, keep_last=2)), replace(OLD, keep_last=2)).kept == (
        "its other checkpoints are damaged"
    )
    assert checkpoint_steps(enough.path) == [2, 4, 6]
