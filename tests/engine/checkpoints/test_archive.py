"""Archives that torch.load reads as its own."""

from __future__ import annotations

import errno
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoints import archive
from darkit.engine.checkpoints.archive import write_archive
from darkit.engine.checkpoints.difference import differences
from darkit.errors import StorageError
from darkit.runs.verify import find_archive_problem


def content() -> dict[str, Any]:
    tied = torch.randn(3, 5)
    weights = OrderedDict(a=tied, b=tied, half=torch.randn(7).bfloat16(), none=torch.empty(0, 4))
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return {
        "state_dict": weights,
        "view": torch.arange(10)[3:5],
        "strided": torch.randn(4, 6).t(),
        "complex": torch.randn(2, dtype=torch.complex64),
        "plain": [1, 2.5, "text", None, (True, b"bytes")],
    }


@pytest.mark.parametrize("large", [False, True], ids=["zip", "zip64"])
@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_torch_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, mmap: bool) -> None:
    if large:
        monkeypatch.setattr(archive, "_LARGE", 1)
    path, given = tmp_path / "file.pth", content()
    size, _ = write_archive(path, given)
    found = torch.load(path, weights_only=True, mmap=mmap)
    assert list(differences(given, found)) == []
    assert found["state_dict"]._metadata == {"": {"version": 1}}
    assert found["state_dict"]["a"].data_ptr() == found["state_dict"]["b"].data_ptr()
    assert size == path.stat().st_size
    assert find_archive_problem(path, read=True) == ""


def test_contents_begin_where_torch_lets_them_begin(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    write_archive(path, content())
    reader = torch._C.PyTorchFileReader(str(path))
    with zipfile.ZipFile(path) as read:
        names = [entry.filename.partition("/")[2] for entry in read.infolist()]
    assert {"data.pkl", "byteorder", "data/0", "version"} <= set(names)
    assert [name for name in names if reader.get_record_offset(name) % 64] == []


def test_an_error_of_the_disk_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_archive(tmp_path / "file.pth", {"w": torch.zeros(2**23)})
    assert list(tmp_path.iterdir()) == []
    assert [str(one.message) for one in recwarn] == []
