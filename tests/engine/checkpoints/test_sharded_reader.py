"""Reading a checkpoint in parts: whole, or refused; a folder may come from anybody."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoints import sharded_reader
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.sharded import _write_index
from darkit.engine.checkpoints.sharded_reader import read_sharded
from darkit.errors import CheckpointCorruptError, CheckpointUnreadableError
from darkit.runs import files, sharded
from darkit.runs.checkpoints import folder_path, list_checkpoints, manifest_path
from darkit.runs.sharded import make_manifest

WHOLE = torch.arange(12.0).reshape(4, 3)
INDEX: dict[str, Any] = {
    "path": ["state_dict", "w"],
    "dtype": "float32",
    "shape": [4, 3],
    "parts": [["shard-0.pth", 0, [0, 0], [3, 3]], ["shard-1.pth", 0, [3, 0], [1, 3]]],
}


def save(run: Path, entries: Any = None, unlisted: str = "", **content: Any) -> dict[str, Any]:
    """Write a folder as darkit does, with a manifest that fits but for one file, and read it."""
    folder = folder_path(run, 1)
    folder.mkdir()
    given = {"shard-0": {0: WHOLE[:3].clone()}, "shard-1": {0: WHOLE[3:].clone()}}
    given["state"] = {"state_dict": {"w": None, "b": torch.ones(2)}, "list": [1, None], "tuple": (None,)}
    for name, value in (given | content).items():
        torch.save(value, folder / f"{name}.pth")
    (folder / "index.json").write_text(json.dumps({"tensors": [INDEX] if entries is None else entries}))
    parts = {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
        if path.name != unlisted
    }
    files.write_json(manifest_path(folder), make_manifest(parts, {"step": 1}))
    return read_checkpoint(list_checkpoints(run)[0])


def test_parts_become_the_tensor_that_they_were(tmp_path: Path) -> None:
    content = save(tmp_path)
    assert torch.equal(content["state_dict"]["w"], WHOLE)
    assert list(content["state_dict"]) == ["w", "b"]
    assert content["list"] == [1, None]


def entry(**changes: Any) -> list[dict[str, Any]]:
    return [INDEX | changes]


def parts(change: Callable[[list[Any]], Any]) -> list[dict[str, Any]]:
    copied = json.loads(json.dumps(INDEX))
    change(copied["parts"])
    return [copied]


HUGE = [2**30, 2**10]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a part is missing": ({"entries": parts(lambda found: found.pop())}, "do not make up the tensor state_dict.w"),
    "parts overlap": (
        {
            "entries": parts(
                lambda found: (found.append(["shard-0.pth", 0, [2, 0], [1, 3]]), found.pop(1))  # the size is right
            )
        },
        "do not make up the tensor",
    ),
    "a part is outside": (
        {"entries": parts(lambda found: found[1].__setitem__(2, [4, 0]))},
        "do not make up the tensor",
    ),
    "more than the files hold": (
        {
            "entries": entry(shape=HUGE, parts=[["shard-0.pth", 0, [0, 0], HUGE]]),
            "shard-0": {0: torch.zeros(1).expand(HUGE)},
        },
        "larger tensors than its files hold",
    ),
    "another shape in the file": ({"shard-1": {0: torch.zeros(1, 4)}}, "does not hold what its index says"),
    "another dtype in the file": ({"shard-1": {0: torch.zeros(1, 3).double()}}, "does not hold what its index says"),
    "no tensor in the file": ({"shard-1": {0: "text"}}, "does not hold what its index says"),
    "an object in the file": ({"shard-1": {0: Fraction(1, 2)}}, "Weights only load failed"),
    "an object in the rest": ({"state": {"state_dict": {"w": Fraction(1, 2)}}}, "Weights only load failed"),
    "a file elsewhere": (
        {"entries": parts(lambda found: found[0].__setitem__(0, "../iter-1-ckpt/shard-0.pth"))},
        "names a file",
    ),
    "a file beside the parts": (
        {"entries": parts(lambda found: found[0].__setitem__(0, "state.pth"))},
        "names a file 'state.pth', which its manifest does not list",
    ),
    "a file that the manifest does not list": (
        {"unlisted": "shard-1.pth"},
        "names a file 'shard-1.pth', which its manifest does not list",
    ),
    "no dtype": ({"entries": entry(dtype="load")}, "does not describe a tensor"),
    "a path that leads nowhere": ({"entries": entry(path=["state_dict", "x", "y"])}, "x"),
    "a path into a tuple": ({"entries": entry(path=["tuple", 0])}, "nothing at"),
    "a negative shape": ({"entries": entry(shape=[-4, 3])}, "does not describe a tensor"),
    "no entry": ({"entries": [3]}, "does not describe a tensor"),
    "no list": ({"entries": {}}, "lists no tensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    content, said = BAD[case]
    with pytest.raises(CheckpointCorruptError, match=said) as caught:
        save(tmp_path, **content)
    assert "\n" not in str(caught.value)


def test_a_pipe_that_took_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    save(tmp_path)
    checkpoint = list_checkpoints(tmp_path)[0]
    for name in ("shard-1.pth", "state.pth"):
        path = checkpoint.path / name
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        held = os.open(path, os.O_RDWR)  # so that a reader that opens it fails, instead of waiting here for ever
        try:
            with pytest.raises(CheckpointCorruptError, match=f"{name}: it is not a regular file"):
                read_sharded(checkpoint)
        finally:
            os.close(held)
        path.unlink()
        path.write_bytes(kept)
    assert torch.equal(read_sharded(checkpoint)["state_dict"]["w"], WHOLE)


def test_a_manifest_that_was_replaced_after_the_check_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    checkpoint = list_checkpoints(tmp_path)[0]
    files.write_json(manifest_path(checkpoint.path), make_manifest({"index.json": (1, "a" * 64)}, {}))
    with pytest.raises(CheckpointCorruptError, match="manifest"):
        read_sharded(checkpoint)


SIDE = 12
CELLS = [(row, column) for row in range(SIDE) for column in range(SIDE)]


def grid(cells: list[tuple[int, int]]) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    """The entry of a square of single elements, each in the place given for it, and the content of the file."""
    placed = [["shard-0.pth", key, list(cell), [1, 1]] for key, cell in enumerate(cells)]
    values = torch.arange(1.0, SIDE**2 + 1)
    return entry(shape=[SIDE, SIDE], parts=placed), {key: values[key].reshape(1, 1).clone() for key in range(SIDE**2)}


def test_a_mesh_of_two_dimensions_is_read(tmp_path: Path) -> None:
    entries, shard = grid(CELLS)
    found = save(tmp_path, entries, **{"shard-0": shard})["state_dict"]["w"]
    assert torch.equal(found, torch.arange(1.0, SIDE**2 + 1).reshape(SIDE, SIDE))


@pytest.mark.parametrize(
    "change",
    [
        lambda cells: [*cells[:-1], cells[0]],  # one twice, one not at all
        lambda cells: [*cells[:-1], (SIDE, SIDE)],
        lambda cells: cells[:-1],
    ],
)
def test_an_overlap_beside_a_gap_is_found_among_many_parts(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    entries, shard = grid(change(CELLS))
    with pytest.raises(CheckpointCorruptError, match="do not make up the tensor"):
        save(tmp_path, entries, **{"shard-0": shard})


def test_an_overlap_that_no_sorted_neighbours_have_is_found(tmp_path: Path) -> None:
    whole = 2 * SIDE
    tall = [["shard-0.pth", "tall", [0, 0], [whole, 1]]]
    rows = [
        ["shard-0.pth", (row, column), [row, column], [1, 1]]
        for row in range(whole)
        for column in range(1, whole)
        if (row, column) != (whole - 1, 1)
    ]
    again = [["shard-0.pth", "again", [whole - 1, 0], [1, 1]]]  # covered by the first; (whole - 1, 1) is not
    placed = [[file, str(key), offset, sizes] for file, key, offset, sizes in tall + rows + again]
    shard = {key: torch.ones(sizes) for _, key, _, sizes in placed}
    with pytest.raises(CheckpointCorruptError, match="do not make up the tensor"):
        save(tmp_path, entry(shape=[whole, whole], parts=placed), **{"shard-0": shard})


def rows(count: int) -> list[dict[str, Any]]:
    return entry(shape=[count, 3], parts=[["shard-0.pth", row, [row, 0], [1, 3]] for row in range(count)])


def test_the_work_grows_with_the_number_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    class Counted(sharded_reader.ChunkStorageMetadata):
        def __getattribute__(self, name: str) -> Any:
            nonlocal looks
            looks += name == "offsets"
            return super().__getattribute__(name)

    monkeypatch.setattr(sharded_reader, "ChunkStorageMetadata", Counted)
    values = torch.rand(400, 3)
    shard = {row: values[row : row + 1].clone() for row in range(400)}
    found = save(tmp_path, rows(400), **{"shard-0": shard})["state_dict"]["w"]
    assert torch.equal(found, values)
    assert looks < 20 * 400


def test_too_many_parts_are_refused_before_any_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "MOST_PARTS", 4)
    with pytest.raises(CheckpointCorruptError, match="lists more than 4 parts"):
        save(tmp_path, [*entry(dtype="none"), INDEX])
    with pytest.raises(CheckpointUnreadableError, match="5 parts of tensors, more than can be read"):
        _write_index(tmp_path / "index.json", {"tensors": rows(4)})
    assert not (tmp_path / "index.json").exists()
