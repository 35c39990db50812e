"""Saving from a thread: the caller goes on, errors come back to it, and nothing old goes before the new is safe."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine import writer as writer_module
from darkit.engine.checkpoint import read_checkpoint
from darkit.engine.writer import BackgroundWriter, CheckpointWriter
from darkit.errors import StorageError
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.retention import Retention
from tests.runs.parts import line_of, names_in, python


def content(step: int = 1) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((4,), float(step))}, "model_class": "m.M", "current_step": step}


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds the writing thread until it is set; it is set in the end."""
    event = threading.Event()
    yield event
    event.set()


def held(gate: threading.Event, taken: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    def write(copied: dict[str, Any]) -> None:
        assert gate.wait(60)
        taken.append({key: value.clone() for key, value in copied.items()})

    return write


def test_the_caller_goes_on_and_may_change_the_state_while_it_is_written(gate: threading.Event) -> None:
    writer, taken = BackgroundWriter(), list[dict[str, Any]]()
    state = {"w": torch.zeros(3)}
    writer.submit(state, held(gate, taken))
    state["w"].fill_(5)
    assert taken == []
    gate.set()
    writer.close()
    assert torch.equal(taken[0]["w"], torch.zeros(3))


def test_a_save_that_comes_too_early_waits_for_the_one_before_and_says_so(
    gate: threading.Event, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_WORTH_TELLING", 0.0)
    writer, taken = BackgroundWriter(), list[dict[str, Any]]()
    state = {"w": torch.zeros(3)}
    writer.submit(state, held(gate, taken))
    second = threading.Thread(target=writer.submit, args=({"w": torch.ones(3)}, held(gate, taken)))
    with caplog.at_level(logging.WARNING):
        second.start()
        second.join(0.1)
        assert second.is_alive(), "there is one copy, and it is being written"
        gate.set()
        second.join(60)
    writer.close()
    assert [float(copied["w"][0]) for copied in taken] == [0.0, 1.0]
    (message,) = caplog.messages[-1:]
    assert message.startswith("The training waited ")
    assert message.endswith(" s for the last checkpoint to reach the disk, which is slower than the saves.")


def fail(copied: dict[str, Any]) -> None:
    raise StorageError(5, "Cannot write x: the disk is on fire.")


@pytest.mark.parametrize("how", ["check", "wait", "submit", "close"])
def test_an_error_of_the_thread_is_raised_once_by_whatever_comes_next(how: str) -> None:
    writer = BackgroundWriter()
    writer.submit({}, fail)
    assert writer._pending is not None
    writer._pending.exception(60)  # it is done
    calls: dict[str, Callable[[], None]] = {
        "check": writer.check,
        "wait": writer.wait,
        "submit": lambda: writer.submit({}, lambda copied: None),
        "close": writer.close,
    }
    with pytest.raises(StorageError, match="on fire"):
        calls[how]()
    writer.check()
    writer.close()


def test_a_look_does_not_wait_for_what_is_being_written(gate: threading.Event) -> None:
    writer = BackgroundWriter()
    writer.submit({}, held(gate, []))
    writer.check()
    gate.set()
    writer.close()


def test_what_comes_after_a_save_is_not_done_if_that_failed() -> None:
    writer, done = BackgroundWriter(), list[int]()
    writer.submit({}, fail)
    writer.then(lambda: done.append(1))
    with pytest.raises(StorageError, match="on fire"):
        writer.wait()
    writer.then(lambda: done.append(2))
    writer.close()
    assert done == [2]


def test_its_thread_ends_with_it() -> None:
    writer = BackgroundWriter()
    writer.submit({}, lambda copied: None)
    writer.close()
    assert not any(thread.name.startswith("darkit-checkpoint") for thread in threading.enumerate())


def test_it_can_be_used_again_after_its_end() -> None:
    writer, taken = BackgroundWriter(), list[Any]()
    for number in range(2):
        writer.submit({"number": number}, taken.append)
        writer.close()
    assert [copied["number"] for copied in taken] == [0, 1]
    writer.close()


def test_what_is_saved_while_the_interpreter_ends_is_written_at_once(tmp_path: Path) -> None:
    script = """
        import atexit, sys, threading
        from darkit.engine.writer import BackgroundWriter
        writer = BackgroundWriter()
        atexit.register(lambda: writer.submit({}, lambda copied: print(threading.current_thread().name, flush=True)))
    """
    with python(script) as process:
        assert line_of(process) == "MainThread"
        assert process.wait(60) == 0


def test_a_checkpoint_is_whole_and_has_a_manifest(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, run_id="abc")
    path = writer.save(3, content(3), {"val_loss": 0.5})
    writer.close()
    (checkpoint,) = list_checkpoints(tmp_path)
    assert (checkpoint.path, checkpoint.step, checkpoint.metrics) == (path, 3, {"val_loss": 0.5})
    assert checkpoint.verified
    assert read_checkpoint(checkpoint)["current_step"] == 3
    assert names_in(tmp_path) == ["iter-3-ckpt.json", "iter-3-ckpt.pth"]


def test_superseded_checkpoints_go_once_the_new_one_is_there(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, retention=Retention(2, 1))
    for step, loss in ((1, 0.1), (2, 0.9), (3, 0.8), (4, 0.7)):
        writer.save(step, content(step), {"val_loss": loss})
    writer.close()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1, 3, 4]
    assert len(names_in(tmp_path)) == 6


def test_nothing_goes_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, retention=Retention(1))
    writer.save(1, content(1), {})
    writer.wait()
    (tmp_path / "iter-2-ckpt.pth").mkdir()  # a rename cannot replace a folder
    writer.save(2, content(2), {})
    with pytest.raises(StorageError, match=r"iter-2-ckpt\.pth"):
        writer.close()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]


def test_the_folder_that_is_gone_is_told_and_not_made_again(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "gone")
    writer.save(1, content(), {})
    with pytest.raises(StorageError, match="No such file"):
        writer.wait()
    with suppress(StorageError):
        writer.close()
    assert names_in(tmp_path) == []
