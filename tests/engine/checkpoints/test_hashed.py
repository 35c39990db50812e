"""Tests of files that are hashed while they are read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from darkit.engine.checkpoints import hashed as module
from darkit.engine.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from darkit.engine.checkpoints.hashed import HashedFile, hashed
from darkit.runs.checkpoints import find_checkpoint


@given(some.integers(0, 3000), some.lists(some.tuples(some.integers(0, 3100), some.integers(0, 900)), max_size=12))
def test_whatever_is_read_the_hash_is_that_of_the_file(size: int, reads: list[tuple[int, int]]) -> None:
    data = os.urandom(size)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name, value in (("_PIECE", 100), ("_SMALL", 20), ("_FARTHEST", 1500), ("_WAITING", 2)):
            patch.setattr(module, name, value)
        path = Path(folder, "file")
        path.write_bytes(data)
        with hashed(path) as file:
            for start, count in reads:
                memory = bytearray(count)
                assert file.seek(start) == file.tell() == start
                done = file.readinto(memory)
                assert bytes(memory[:done]) == data[start : start + count]
                memory[:] = bytes(count)  # as memory that is freed and used again
            assert file.sha256() == hashlib.sha256(data).hexdigest()


def test_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {str(number): torch.rand(700_000) for number in range(4)}
    content = {"state_dict": weights, "model_class": "Model", "current_step": 1}
    path = write_checkpoint(tmp_path, 1, content, metrics={}, run_id="r")
    counts: list[int] = []
    read_at = HashedFile._read_at

    def counting(file: HashedFile, memory: memoryview, place: int) -> int:
        counts.append(read_at(file, memory, place))
        return counts[-1]

    monkeypatch.setattr(HashedFile, "_read_at", counting)
    read = read_checkpoint(find_checkpoint(tmp_path, 1))
    assert all(torch.equal(read["state_dict"][name], weight) for name, weight in weights.items())
    assert path.stat().st_size <= sum(counts) < 1.1 * path.stat().st_size


def test_a_disk_that_fails_in_the_thread_stops_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2**22))

    read_at = HashedFile._read_at

    def broken(file: HashedFile, memory: memoryview, place: int) -> int:
        if place < 2**20:  # which only the thread reads
            raise OSError(5, "Input/output error")
        return read_at(file, memory, place)

    monkeypatch.setattr(HashedFile, "_read_at", broken)
    with hashed(path) as file:
        file.seek(2**20)
        for _ in range(3):
            assert file.readinto(bytearray(2**20)) == 2**20
        with pytest.raises(OSError, match="Input/output error"):
            file.sha256()
