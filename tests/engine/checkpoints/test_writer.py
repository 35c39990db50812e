"""The writing thread: one copy, errors raised once with their cause, only superseded files deleted."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import lightning
import pytest
import torch

import darkit
from darkit.engine.callbacks import StepCheckpoint
from darkit.engine.checkpoints import priority
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.writer import BackgroundWriter, CheckpointWriter
from darkit.errors import CheckpointUnreadableError, StorageError
from darkit.runs.checkpoints import find_checkpoint, list_checkpoints, manifest_path
from darkit.runs.retention import Retention
from tests.engine.parts import LossMLP, in_order, made, train, xy
from tests.runs.parts import PEAK, line_of, names_in, python, wait_until


def steps(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(folder)]


def content(value: float = 1) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((3,), float(value))}}


@pytest.fixture
def writer() -> Any:
    """A writer that is closed at the end of the test."""
    made = BackgroundWriter()
    yield made
    made.close()


def test_the_caller_continues_while_the_thread_writes_the_copy(writer: BackgroundWriter) -> None:
    go_on = threading.Event()
    written: list[float] = []
    weights = torch.ones(2)

    def write(copied: dict[str, Any]) -> None:
        assert threading.current_thread().name.startswith("darkit-checkpoint")
        assert go_on.wait(60)
        written.append(copied["w"].sum().item())

    writer.submit({"w": weights}, write)
    weights.zero_()
    assert written == []
    writer.check()
    go_on.set()
    writer.wait()
    assert written == [2.0]


def test_a_slow_disk_makes_the_next_save_wait_and_says_for_how_long(
    writer: BackgroundWriter, caplog: pytest.LogCaptureFixture
) -> None:
    started, go_on = threading.Event(), threading.Event()
    written: list[float] = []

    def write(copied: dict[str, Any]) -> None:
        started.set()
        assert go_on.wait(60)
        written.append(copied["w"].item())

    writer.submit({"w": torch.tensor(1.0)}, write)
    assert started.wait(60)
    timer = threading.Timer(0.3, go_on.set)
    timer.start()
    with caplog.at_level(logging.WARNING):
        writer.submit({"w": torch.tensor(2.0)}, write)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("The training waited ")
    writer.wait()
    assert written == [1.0, 2.0], "the first was on the disk before its copy was overwritten"
    timer.join()


def test_a_copy_that_is_being_written_is_not_overwritten_after_an_interrupted_wait(writer: BackgroundWriter) -> None:
    started, go_on = threading.Event(), threading.Event()
    written: list[float] = []

    def write(copied: dict[str, Any]) -> None:
        started.set()
        assert go_on.wait(60)
        written.append(copied["w"].item())

    def interrupt() -> None:
        wait_until(lambda: bool(priority._waiting))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    writer.submit({"w": torch.tensor(1.0)}, write)
    assert started.wait(60)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        writer.submit({"w": torch.tensor(2.0)}, write)
    thread.join()
    timer = threading.Timer(0.3, go_on.set)
    timer.start()
    writer.submit({"w": torch.tensor(3.0)}, write)
    writer.wait()
    timer.join()
    assert written == [1.0, 3.0]


@pytest.mark.parametrize("call", ["check", "wait", "submit", "close", "then"])
def test_an_error_of_the_thread_is_raised_by_the_next_call_and_only_once(call: str) -> None:
    writer = BackgroundWriter()

    def fail(copied: dict[str, Any]) -> None:
        raise StorageError(28, "no space")

    writer.submit({}, fail)
    pending = writer._pending
    assert pending is not None
    wait_until(pending.done)
    calls: dict[str, Callable[[], Any]] = {
        "submit": lambda: writer.submit({}, lambda copied: None),
        "then": lambda: (writer.then(lambda: None), writer.wait()),
    }
    with pytest.raises(StorageError, match="no space"):
        calls.get(call, lambda: getattr(writer, call)())()
    writer.check()
    writer.wait()
    writer.close()


def test_actions_after_a_failed_save_are_not_run(tmp_path: Path) -> None:
    writer = BackgroundWriter()
    done: list[int] = []

    def fail(copied: dict[str, Any]) -> None:
        raise StorageError(28, "no space")

    writer.submit({}, fail)
    writer.then(lambda: done.append(1))
    with pytest.raises(StorageError):
        writer.close()
    assert done == []


def test_a_closed_writer_has_no_thread() -> None:
    writer = BackgroundWriter()
    writer.submit({}, lambda copied: None)
    writer.close()
    writer.close()
    assert not any(thread.name.startswith("darkit-checkpoint") for thread in threading.enumerate())


def test_a_closed_writer_can_be_used_again() -> None:
    writer, taken = BackgroundWriter(), list[Any]()
    for number in range(2):
        writer.submit({"number": number}, taken.append)
        writer.close()
    assert [copied["number"] for copied in taken] == [0, 1]


def test_checkpoints_are_whole_and_have_the_metrics_of_their_step(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, run_id="me")
    paths = [writer.save(step, content(step), {"val_loss": step / 2}) for step in (2, 4)]
    writer.close()
    assert [path.name for path in paths] == ["iter-2-ckpt.pth", "iter-4-ckpt.pth"]
    for checkpoint in list_checkpoints(tmp_path):
        assert read_checkpoint(checkpoint)["state_dict"]["w"].tolist() == [checkpoint.step] * 3
        assert checkpoint.metrics == {"val_loss": checkpoint.step / 2}
    assert len(names_in(tmp_path)) == 4


def test_superseded_checkpoints_go_with_their_manifests(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, retention=Retention(last=2, best=1))
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3), (5, 0.2)):
        writer.save(step, content(), {"val_loss": loss})
    writer.close()
    assert steps(tmp_path) == [2, 4, 5]
    assert len(names_in(tmp_path)) == 6


def test_nothing_is_deleted_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, retention=Retention(last=1))
    writer.save(1, content(), {})
    writer.wait()
    writer.save(2, {"state_dict": {"w": object()}}, {})
    with pytest.raises(CheckpointUnreadableError):
        writer.close()
    assert steps(tmp_path) == [1]
    assert read_checkpoint(find_checkpoint(tmp_path, 1))


def test_the_old_checkpoint_exists_until_the_new_one_and_its_manifest_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        if path == manifest_path(tmp_path / "iter-1-ckpt.pth"):
            seen.append(names_in(tmp_path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    writer = CheckpointWriter(tmp_path, retention=Retention(last=1))
    for step in (1, 2):
        writer.save(step, content(), {})
    writer.close()
    assert seen == [["iter-1-ckpt.json", "iter-1-ckpt.pth", "iter-2-ckpt.json", "iter-2-ckpt.pth"]]
    assert steps(tmp_path) == [2]


def test_an_old_one_that_cannot_be_deleted_is_a_storage_error(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, retention=Retention(last=1))
    writer.save(1, content(), {})
    writer.wait()
    path = manifest_path(tmp_path / "iter-1-ckpt.pth")
    path.unlink()
    path.mkdir()  # what even root cannot unlink
    writer.save(2, content(), {})
    with pytest.raises(StorageError, match=r"Cannot delete .*iter-1-ckpt\.json"):
        writer.close()
    assert steps(tmp_path) == [1, 2]


def test_a_save_at_interpreter_exit_is_written(python: str, tmp_path: Path) -> None:
    script = f"""
import atexit, sys
from pathlib import Path
import torch
from darkit.engine.checkpoints.writer import CheckpointWriter
writer = CheckpointWriter(Path({str(tmp_path)!r}))
atexit.register(lambda: (writer.save(3, {{"state_dict": {{"w": torch.ones(1)}}}}, {{}}), writer.close()))
"""
    subprocess.run([python, "-c", script], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})  # noqa: PTH109
    assert steps(tmp_path) == [3]


class Blocking(lightning.Callback):
    """Create a folder at the path of a checkpoint, which no file can replace."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / f"iter-{step}-ckpt.pth"

    def on_train_start(self, *arguments: Any) -> None:
        self.path.mkdir()


@pytest.mark.parametrize("step", [4, 6])
def test_a_save_that_fails_ends_the_training_with_its_cause_and_the_earlier_ones_stay(home: Path, step: int) -> None:
    folder = home / "base" / "run"
    with pytest.raises(StorageError, match=rf"Cannot write .*iter-{step}-ckpt\.pth: Is a directory") as caught:
        train(
            made(), xy(), name="run", max_step=6, save_step_interval=2, keep_last=1, callbacks=[Blocking(folder, step)]
        )
    assert getattr(caught.value, "__notes__", []) == []
    run = darkit.load("run")
    assert (run.status, "Is a directory" in run.details.reason) == ("crashed", True)
    saved = [checkpoint.step for checkpoint in run.checkpoints()]
    assert saved in ([step - 2], [step + 1], [step + 2])  # the last whole step is saved once more, if there is one
    assert read_checkpoint(find_checkpoint(run.path, saved[0]))["current_step"] == saved[0]
    assert [name for name in names_in(folder) if ".tmp-" in name] == []
    Blocking(folder, step).path.rmdir()
    assert train(made(), xy(), name="run", resume=True, max_step=9).status == "finished"


@pytest.mark.filterwarnings("ignore:::lightning")
def test_a_callback_alone_raises_the_error_of_its_thread_once(tmp_path: Path) -> None:
    class Foreign(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = LossMLP()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(*batch)["loss"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    folder = tmp_path / "run"
    folder.mkdir()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=6,
        callbacks=[StepCheckpoint(folder, 2), Blocking(folder, 4)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(StorageError, match="Is a directory") as caught:
        trainer.fit(Foreign(), in_order())
    assert getattr(caught.value, "__notes__", []) == []
    assert steps(folder) in ([2, 5], [2, 6])  # the step at which the error came out
    assert not any(thread.name.startswith("darkit-checkpoint") for thread in threading.enumerate())


def test_repeated_saves_share_one_copy_of_the_state(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        import torch
        from darkit.engine.checkpoints.writer import CheckpointWriter
        size = 100_000_000
        state = {"state_dict": {"w": torch.ones(size // 4), "v": torch.ones(size // 4)}}
        writer = CheckpointWriter(Path(sys.argv[1]))
        peak()
        before = peak()
        for step in range(4):
            writer.save(step, state, {})
        writer.close()
        print((peak() - before) / (2 * size))
    """
    with python(PEAK + dedent(script), tmp_path) as process:
        states = float(line_of(process))
    assert 0.95 < states < 1.1
