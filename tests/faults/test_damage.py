"""A file that is not what it was, or was never meant well: noticed every time, and nothing of it runs."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoints.checkpoint import read_checkpoint, read_run_checkpoint, write_checkpoint
from darkit.errors import CheckpointCorruptError, CheckpointUnreadableError
from darkit.runs import files
from darkit.runs.checkpoints import describe_checkpoint, list_checkpoints
from darkit.runs.verify import find_problem
from tests.children import Zygote


def saved(folder: Path, steps: tuple[int, ...] = (1, 2)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        content = {"state_dict": {"w": torch.arange(200.0) + step}, "model_class": "M", "current_step": step}
        write_checkpoint(folder, step, content, metrics={}, run_id="id")
    return folder


def test_two_hundred_flipped_bytes_and_cuts_are_noticed_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = saved(tmp_path / "run")
    path = run / "iter-2-ckpt.pth"
    whole = path.read_bytes()
    chosen = random.Random(200)
    for case in range(200):
        place = chosen.randrange(len(whole))
        if case % 4 == 3:
            path.write_bytes(whole[:place])
        else:
            flipped = whole[place] ^ (1 << chosen.randrange(8))
            path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            checkpoint, content = read_run_checkpoint(run)
        assert (checkpoint.step, content["current_step"]) == (1, 1), (case, place)
        assert any("Skipped iter-2-ckpt" in message for message in caplog.messages), (case, place)
        damaged = describe_checkpoint(path, 2)
        assert damaged is not None
        assert find_problem(damaged)
        with pytest.raises(CheckpointCorruptError):
            read_run_checkpoint(run, 2)


def test_a_run_without_any_whole_checkpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = saved(tmp_path / "run")
    for path in run.glob("*.pth"):
        path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(CheckpointCorruptError, match="No checkpoint of the run 'run' is intact"):
        read_run_checkpoint(run)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Innocent:
    """A class that nobody has allowed."""


def archive_with(pickled: bytes, source: Path, target: Path) -> None:
    """Copy a checkpoint with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, pickled if entry.filename.endswith("data.pkl") else old.read(entry))


@pytest.mark.parametrize("kind", ["code", "class"])
def test_a_checkpoint_that_would_run_code_or_make_a_stranger_is_refused_and_nothing_runs(
    tmp_path: Path, kind: str
) -> None:
    run = saved(tmp_path / "run", (1,))
    marker = tmp_path / "ran"
    content = {"state_dict": {}, "evil": Evil(marker) if kind == "code" else Innocent()}
    hostile = run / "iter-9-ckpt.pth"
    archive_with(pickle.dumps(content, protocol=2), run / "iter-1-ckpt.pth", hostile)
    with pytest.raises(CheckpointCorruptError, match="cannot be read"):
        read_run_checkpoint(run, 9)
    plain = run / "iter-8-ckpt.pth"
    plain.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointCorruptError, match="not an archive"):
        read_run_checkpoint(run, 8)
    assert not marker.exists()
    shutil.rmtree(run)


def test_an_archive_that_unpacks_to_a_gigabyte_is_refused_without_the_memory(zygote: Zygote, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", (1,))
    bomb = run / "iter-9-ckpt.pth"
    with zipfile.ZipFile(run / "iter-1-ckpt.pth") as old, zipfile.ZipFile(bomb, "w") as new:
        for entry in old.infolist():
            if entry.filename.endswith("data/0"):
                with new.open(zipfile.ZipInfo(entry.filename), "w", force_zip64=True) as stream:
                    stream.write(b"")
            else:
                new.writestr(entry, old.read(entry))
        info = zipfile.ZipInfo("archive/data/1")
        info.compress_type = zipfile.ZIP_DEFLATED
        with new.open(info, "w", force_zip64=True) as stream:
            block = bytes(1 << 20)
            for _ in range(1024):
                stream.write(block)
    assert bomb.stat().st_size < 2_000_000
    code = f"""
import resource
from pathlib import Path
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.errors import CheckpointCorruptError, CheckpointUnreadableError
from darkit.runs import files
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_run_checkpoint(Path({str(run)!r}), 9)
except CheckpointCorruptError as error:
    print(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    raise SystemExit(7 if grown < 100_000 else 8)
"""
    child = zygote.run(code, tmp_path)
    assert child.wait() == 7, child.output
    assert "compressed" in child.output


class Greedy:
    """A value that is a few bytes in a file and as many as it likes in memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (self.size,)


@pytest.mark.parametrize("manifest", [False, True], ids=["without a manifest", "with one that vouches for it"])
def test_a_pickle_that_asks_for_memory_it_does_not_fill_is_refused_before_it_is_read(
    tmp_path: Path, manifest: bool
) -> None:
    run = saved(tmp_path / "run", (1,))
    greedy = run / "iter-9-ckpt.pth"
    pickled = pickle.dumps({"state_dict": {}, "greedy": Greedy(2**50)}, protocol=2)
    archive_with(pickled, run / "iter-1-ckpt.pth", greedy)
    if manifest:
        digest = hashlib.sha256(greedy.read_bytes()).hexdigest()
        files.write_json(greedy.with_suffix(".json"), {"size": greedy.stat().st_size, "sha256": digest, "step": 9})
    with pytest.raises(CheckpointCorruptError, match="is damaged: it asks for memory"):
        read_run_checkpoint(run, 9)


def test_what_would_be_refused_when_it_is_read_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", (1,))
    content = {"state_dict": {}, "model_class": "M", "current_step": 2, "mine": {"buffer": bytearray(b"abc")}}
    with pytest.raises(CheckpointUnreadableError, match=r"mine\.buffer needs builtins\.bytearray"):
        write_checkpoint(run, 2, content, metrics={}, run_id="id")
    assert sorted(path.name for path in run.iterdir()) == ["iter-1-ckpt.json", "iter-1-ckpt.pth"]


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", (1,))
    original = (run / "iter-1-ckpt.pth").read_bytes()
    copied = io.BytesIO(original)
    with zipfile.ZipFile(copied, "a") as archive:
        entry = next(item for item in archive.infolist() if item.filename.endswith("data/0"))
        twins = []
        for number in range(50):  # all of them point to the same bytes
            twin = zipfile.ZipInfo(f"archive/data/{number + 1}")
            twin.header_offset, twin.CRC = entry.header_offset, entry.CRC
            twin.compress_size = twin.file_size = entry.file_size
            twins.append(twin)
        archive.filelist.extend(twins)
        archive._didModify = True  # type: ignore[attr-defined]
    (run / "iter-9-ckpt.pth").write_bytes(copied.getvalue())
    found = [checkpoint for checkpoint in list_checkpoints(run) if checkpoint.step == 9]
    with pytest.raises(CheckpointCorruptError, match="more than its own size"):
        read_checkpoint(found[0])
