"""A full or read-only disk: typed errors, and a run that still has its step and the reason of its end."""

from __future__ import annotations

import errno
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.errors import StorageError
from darkit.runs import Run, base, files
from darkit.runs.status import CRASHED, RUNNING, StatusWriter, read_status
from tests.engine.parts import made, train, xy


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file grows beyond a size: what a full disk says, of a file that is too large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_events_that_do_not_fit_are_a_storage_error_and_those_before_stay_whole(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path / "events")
    sink.write([{"step": 1, "train_loss": 0.5}])
    size = next((tmp_path / "events").iterdir()).stat().st_size
    with full_at(size + 20), pytest.raises(StorageError, match=r"^Cannot write the events .*tfevents"):
        sink.write([{"step": 2, "train_loss": 0.25}])
    sink.close()
    sink.close()
    events = list(EventFileLoader(str(next((tmp_path / "events").iterdir()))).Load())
    assert [event.step for event in events if event.summary.value] == [1]


def test_events_that_cannot_begin_are_a_storage_error(tmp_path: Path) -> None:
    with full_at(0), pytest.raises(StorageError, match="Cannot write the events"):
        TensorBoardSink(tmp_path / "events")


class Refuse(lightning.Callback):
    """From a step on no new file can be written beside the status, as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
        if trainer.global_step == 3:
            original = files.write_bytes

            def refuse(path: Path, data: bytes) -> None:
                if path.name == files.STATUS:
                    raise StorageError(errno.ENOSPC, f"Cannot write {path}: No space left on device.")
                original(path, data)

            self.monkeypatch.setattr(files, "write_bytes", refuse)


def test_a_status_for_which_there_is_no_new_file_is_written_over_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(made(), xy(), name="a", max_step=5, callbacks=[Refuse(monkeypatch)])
    assert (run.status, run.details.step, run.details.reason) == ("finished", 5, "")


class Fail(Refuse):
    """Likewise, and then it fails."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
        super().on_train_batch_end(trainer, *rest)
        if trainer.global_step == 4:
            raise ZeroDivisionError("x" * 10_000)


def test_what_is_too_long_for_the_old_file_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        train(made(), xy(), name="a", max_step=5, callbacks=[Fail(monkeypatch)])
    details = Run(base() / "a").details
    assert (details.state, details.step) == ("crashed", 4)
    assert details.reason.startswith("ZeroDivisionError: xxx")
    assert len((base() / "a" / files.STATUS).read_bytes()) <= 4096


def test_a_shorter_status_leaves_nothing_of_the_longer_one(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"reason": "long" * 100})
    files.overwrite_json(tmp_path / "a.json", {"reason": "short"})
    assert files.read_json(tmp_path / "a.json") == {"reason": "short"}
    with pytest.raises(StorageError, match="No space left"):
        files.overwrite_json(tmp_path / "a.json", {"reason": "x" * 5000})
    assert files.read_json(tmp_path / "a.json") == {"reason": "short"}
    with pytest.raises(StorageError):
        files.overwrite_json(tmp_path / "missing.json", {})
    assert not (tmp_path / "missing.json").exists()


def test_a_run_whose_last_status_could_not_be_written_has_the_step_of_its_log(tmp_path: Path) -> None:
    run = train(made(), xy(), name="a", max_step=6, save_step_interval=2)
    writer = StatusWriter(run.path, 6, lambda: 1)  # the last status that could be written
    writer._ended.set()
    writer._thread.join()
    assert files.read_json(run.path / files.STATUS)["state"] == RUNNING
    seen = read_status(run.path)
    assert (seen.state, seen.step) == (CRASHED, 6)
    assert "its disk was full" in seen.reason
    (run.path / files.LOG).unlink()
    assert read_status(run.path).step == 6, "a checkpoint tells too"
