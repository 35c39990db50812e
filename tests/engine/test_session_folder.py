"""A training writes into its folder or nowhere: a deleted run does not write into its successor."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest

from darkit.engine.config import TrainerConfig
from darkit.engine.session import Session
from darkit.errors import ConfigError, RunReplacedError, StorageError
from darkit.runs import base, files
from darkit.runs.checkpoints import checkpoint_path, manifest_path
from darkit.runs.lock import is_locked
from darkit.runs.status import read_status
from tests.children import LIMIT
from tests.engine.parts import made, run_names, train, xy


class At(lightning.Callback):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            self.act()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize("how", ["deleted", "moved", "deleted and begun anew", "moved and begun anew"])
def test_a_deleted_run_ends_in_one_sentence_and_writes_nothing_into_its_successor(tmp_path: Path, how: str) -> None:
    successor: list[Session] = []
    before: dict[str, bytes] = {}

    def replace() -> None:
        folder = base() / "a"
        deadline = time.monotonic() + LIMIT
        while not manifest_path(checkpoint_path(folder, 2)).exists():  # no write is between its check and its rename
            assert time.monotonic() < deadline
            time.sleep(0.005)
        folder.rename(tmp_path / "moved")
        if "deleted" in how:
            shutil.rmtree(tmp_path / "moved", ignore_errors=True)
        if "anew" in how:
            successor.append(Session.create(base(), TrainerConfig(name="a"), "MLP"))
            for step in (1, 2):  # what keep_last of the old one would take for superseded
                checkpoint_path(folder, step).write_bytes(b"theirs")
            (folder / files.STOP).write_text("{}")
            before.update(content(folder))

    callbacks = [At(4, replace)]
    settings: dict[str, Any] = {"max_step": 5000, "save_step_interval": 2, "keep_last": 1}
    with pytest.raises(RunReplacedError, match="no longer the one that this training writes into") as raised:
        train(made(), xy(), name="a", callbacks=callbacks, **settings)
    assert not getattr(raised.value, "__notes__", [])
    assert content(base() / "a") == before if "anew" in how else not (base() / "a").exists()
    for session in successor:
        assert is_locked(session.folder), "the successor's lock is its own"
        session.end()


def test_a_removed_lock_file_is_recreated_and_the_training_continues() -> None:
    callbacks = [At(2, (base() / "a" / files.LOCK).unlink)]
    run = train(made(), xy(), name="a", callbacks=callbacks, max_step=6, save_step_interval=2)
    assert run.status == "finished"
    assert not is_locked(run.path)


def test_a_status_thread_ends_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.runs.status.HEARTBEAT", 0.02)
    session = Session.create(base(), TrainerConfig(name="a"), "MLP")
    session.begin(10)
    session.folder.rename(tmp_path / "moved")
    session.folder.mkdir()
    assert session._status is not None
    session._status._thread.join(60)
    assert not session._status._thread.is_alive()
    assert list(session.folder.iterdir()) == []
    with pytest.raises(RunReplacedError):
        session.end()
    assert list(session.folder.iterdir()) == []


def test_a_run_that_cannot_begin_does_not_delete_its_successor() -> None:
    session = Session.create(base(), TrainerConfig(name="a"), "MLP")
    shutil.rmtree(session.folder)
    session.folder.mkdir()
    session.end(ConfigError("wrong"))
    assert session.folder.is_dir()


@pytest.mark.parametrize("name", ["mine", None])
def test_where_nothing_can_be_locked_no_folder_stays(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StorageError, match="Cannot lock the run"):
        train(made(), xy(), name=name)
    assert run_names() == []


@pytest.mark.parametrize("name", [".notes.json.tmp-7-1", ".stop.json.tmp-7-1", ".iter-2-ckpt.pth.tmp-7-1"])
def test_resuming_removes_only_files_that_no_process_writes(name: str) -> None:
    run = train(made(), xy(), name="a", max_step=2)
    left, old = run.path / name, run.path / f"{name}-old"
    for path in (left, old):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    train(made(), xy(), resume="a", max_step=3)
    assert left.exists() == (not name.startswith(".iter"))
    assert not old.exists()
    assert read_status(run.path).state == "finished"
