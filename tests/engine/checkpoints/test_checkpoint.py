"""Checkpoint files: written atomically, read only if they match their manifest."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import resource
import signal
import threading
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from darkit.engine.checkpoints.checkpoint import read_checkpoint, read_run_checkpoint, write_checkpoint, write_file
from darkit.engine.checkpoints.weights import load_weights
from darkit.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointUnreadableError,
    OutOfMemoryError,
    StorageError,
)
from darkit.runs import files
from darkit.runs.checkpoints import find_checkpoint, latest_checkpoint, list_checkpoints, manifest_path
from tests.runs.parts import names_in


def content(step: int = 1) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((5,), float(step))}, "model_class": "a.B", "current_step": step}


def write(folder: Path, step: int = 1, **more: Any) -> Path:
    return write_checkpoint(folder, step, content(step) | more, metrics={"val_loss": 0.5}, run_id="id")


def test_a_checkpoint_is_read_by_torch_alone_and_its_manifest_describes_it(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].tolist() == [7.0] * 5
    manifest = json.loads(manifest_path(path).read_text())
    data = path.read_bytes()
    assert manifest.pop("time") > 0
    assert manifest == {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "step": 7,
        "metrics": {"val_loss": 0.5},
        "run_id": "id",
    }
    assert names_in(tmp_path) == ["iter-7-ckpt.json", "iter-7-ckpt.pth"]


def test_written_content_is_read_back(tmp_path: Path) -> None:
    write(tmp_path, 3)
    read = read_checkpoint(find_checkpoint(tmp_path, 3))
    assert torch.equal(read["state_dict"]["w"], content(3)["state_dict"]["w"])
    assert (read["model_class"], read["current_step"]) == ("a.B", 3)


class Runs:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/darkit-must-not-exist",)


def test_unreadable_content_is_refused_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes(), manifest_path(path).read_bytes()
    with pytest.raises(
        CheckpointUnreadableError, match=r"back: scheduler\.list\[1\] needs posix\.system\. Checkpoints hold only"
    ):
        write(tmp_path, scheduler={"list": [1, Runs()]})
    assert (path.read_bytes(), manifest_path(path).read_bytes()) == before
    assert names_in(tmp_path) == ["iter-1-ckpt.json", "iter-1-ckpt.pth"]


READABLE: list[Any] = [
    torch.float32,
    torch.device("cpu"),
    torch.Size([2]),
    {1, 2},
    Counter("aab"),
    OrderedDict(a=1),
    (1, [2, {"x": b"y"}]),
    torch.eye(2).to_sparse(),
]
UNREADABLE: list[Any] = [
    numpy.ones(2),
    numpy.float64(1),
    Path("x"),
    lambda: None,
    threading.Lock(),
    {"deep": [print]},
    bytearray(3),
]


@pytest.mark.parametrize("value", READABLE, ids=str)
def test_values_that_torch_reads_without_running_code_are_written(tmp_path: Path, value: Any) -> None:
    write(tmp_path, value=value)
    read = read_checkpoint(find_checkpoint(tmp_path, 1))["value"]
    assert torch.equal(read.to_dense(), value.to_dense()) if isinstance(value, torch.Tensor) else read == value


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: type(value).__name__)
def test_values_that_torch_would_refuse_are_refused_before_writing(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointUnreadableError, match=r"could not be read back: value[\w.\[\]]* needs "):
        write(tmp_path, value=value)
    assert names_in(tmp_path) == []


def test_writing_a_step_again_never_leaves_the_old_manifest_beside_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    replaced = os.replace

    class Killed(BaseException):
        """Simulates a kill between the two renames."""

    def replace_once(source: Any, target: Any) -> None:
        replaced(source, target)
        raise Killed

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(Killed):
        write_checkpoint(tmp_path, 1, content(9), metrics={}, run_id="")
    monkeypatch.undo()
    assert not manifest_path(path).exists()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert read_checkpoint(found)["current_step"] == 9


def test_a_file_system_error_is_reported_as_such_and_the_old_file_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = write(folder)
    before = path.read_bytes()

    with pytest.raises(StorageError, match=r"Cannot write .*iter-1-ckpt\.pth: File too large"):
        _with_limit(folder)
    assert path.read_bytes() == before
    assert names_in(folder) == ["iter-1-ckpt.json", "iter-1-ckpt.pth"]
    assert read_checkpoint(find_checkpoint(folder, 1))["current_step"] == 1


def _with_limit(folder: Path) -> None:
    """Write a checkpoint larger than this process may write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        write_checkpoint(folder, 1, {"state_dict": {"w": torch.zeros(100_000)}}, metrics={}, run_id="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_checkpoint_that_memory_is_too_short_for_is_not_taken_for_damaged_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    original, left = torch.load, [1]

    def load(*arguments: Any, **settings: Any) -> Any:
        if left:
            left.pop()
            torch.empty(1 << 55, dtype=torch.uint8)
        return original(*arguments, **settings)

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(OutOfMemoryError, match=r"iter-2-ckpt\.pth may be intact.*not enough memory"):
        read_run_checkpoint(tmp_path)
    assert read_run_checkpoint(tmp_path)[0].step == 2
    path, left[:] = find_checkpoint(tmp_path, 2).path, [1]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert read_run_checkpoint(tmp_path)[0].step == 1, "it is damaged as well"


@pytest.mark.parametrize("without_manifest", [False, True])
def test_a_checkpoint_that_cannot_be_opened_now_is_not_passed_over(tmp_path: Path, without_manifest: bool) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    if without_manifest:
        manifest_path(find_checkpoint(tmp_path, 2).path).unlink()
    checkpoint = find_checkpoint(tmp_path, 2)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    caught: list[str] = []
    read_run_checkpoint(tmp_path)  # imports what it needs
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        for read in (lambda: read_run_checkpoint(tmp_path), lambda: read_checkpoint(checkpoint)):
            with pytest.raises(StorageError) as error:
                read()
            caught.append(str(error.value))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "Cannot list the checkpoints" in caught[0]
    assert "iter-2-ckpt.pth may be intact" in caught[1]
    assert all("Too many open files" in text for text in caught)


def test_a_checkpoint_whose_manifest_cannot_be_read_now_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    original = os.open

    def refuse(path: Any, *arguments: Any, **settings: Any) -> int:
        if str(path).endswith("iter-2-ckpt.json"):
            raise PermissionError(errno.EACCES, "Permission denied")  # the superuser may read everything
        return original(path, *arguments, **settings)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"iter-2-ckpt\.pth may be intact.*its manifest, Permission denied"):
        read_run_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def bytes_of_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    path = write(tmp_path_factory.mktemp("one"))
    return path.read_bytes(), manifest_path(path).read_bytes()


@settings(max_examples=150)
@given(data=st.data(), vouched=st.booleans())
def test_a_damage_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, bytes_of_one: tuple[bytes, bytes], data: Any, vouched: bool
) -> None:
    whole, manifest = bytes_of_one
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "iter-1-ckpt.pth"
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:place]
    else:
        damaged = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(damaged)
    if vouched:
        manifest_path(path).write_bytes(manifest)
        with pytest.raises(CheckpointCorruptError, match=r"iter-1-ckpt\.pth is damaged: it"):
            read_checkpoint(find_checkpoint(folder, 1))
        return
    try:  # CRCs alone do not see everything, but what is read has to be the weights
        read = read_checkpoint(find_checkpoint(folder, 1))
    except CheckpointCorruptError:
        return
    assert read["state_dict"]["w"].tolist() == [1.0] * 5


def test_the_latest_intact_checkpoint_is_read_and_skipped_ones_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    three, two = (tmp_path / f"iter-{step}-ckpt.pth" for step in (3, 2))
    three.write_bytes(three.read_bytes()[:-1])
    data = bytearray(two.read_bytes())
    data[len(data) // 2] ^= 1
    two.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        checkpoint, read = read_run_checkpoint(tmp_path)
    assert (checkpoint.step, read["current_step"]) == (1, 1)
    text = "\n".join(caplog.messages)
    assert "iter-3-ckpt" in text
    assert "bytes where its manifest says" in text
    assert "iter-2-ckpt" in text
    assert "its sha256 is not the one in its manifest" in text
    with pytest.raises(CheckpointCorruptError):
        read_run_checkpoint(tmp_path, "iter-2-ckpt")
    with pytest.raises(CheckpointCorruptError):
        read_run_checkpoint(tmp_path, 3)


def test_a_run_without_a_whole_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no checkpoint yet"):
        read_run_checkpoint(tmp_path)
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointCorruptError, match=r"No checkpoint of the run .* is intact\. The checkpoint"):
        read_run_checkpoint(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    mark = Path("/tmp/darkit-must-not-exist")
    path = tmp_path / "iter-1-ckpt.pth"
    torch.save({"state_dict": {"w": Runs()}}, path)
    with pytest.raises(CheckpointCorruptError, match="cannot be read"):
        read_checkpoint(find_checkpoint(tmp_path, 1))
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointCorruptError, match=r"is damaged: it is not an archive as torch\.save makes it"):
        read_checkpoint(find_checkpoint(tmp_path, 1))
    assert not mark.exists()


def test_an_archive_that_unpacks_to_more_than_itself_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "iter-1-ckpt.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointCorruptError, match=r"is compressed, which torch\.save never does"):
        read_checkpoint(find_checkpoint(tmp_path, 1))


@pytest.mark.parametrize("value", [[1], {"weights": 1}, torch.ones(1)])
def test_another_file_of_torch_is_not_a_checkpoint(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "iter-1-ckpt.pth")
    with pytest.raises(CheckpointCorruptError, match="is not a checkpoint: it has no 'state_dict'"):
        read_checkpoint(find_checkpoint(tmp_path, 1))


def test_any_file_can_be_written_with_a_manifest(tmp_path: Path) -> None:
    write_file(tmp_path / "a.ckpt", {"state_dict": {}}, {"step": 4})
    assert files.read_json(tmp_path / "a.json")["step"] == 4
    assert list_checkpoints(tmp_path) == []


def test_weights_of_another_model_are_refused_by_their_first_keys() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = model[0].weight.clone()
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4), "x": torch.ones(1), "y": torch.ones(1)}
    said = (
        "The checkpoint of a a.B does not fit this torch.nn.modules.container.Sequential: '1.weight' is missing, "
        "'1.bias' is missing, 'x' is unexpected and 2 more."
    )
    with pytest.raises(CheckpointMismatchError) as caught:
        load_weights(model, {"state_dict": weights, "model_class": "a.B"})
    assert str(caught.value) == said
    assert torch.equal(model[0].weight, before)
    with pytest.raises(CheckpointMismatchError, match=r"'weight' has shape \(3, 2\) instead of \(1, 2\)"):
        load_weights(nn.Linear(2, 1, bias=False), {"state_dict": {"weight": torch.ones(3, 2)}})
