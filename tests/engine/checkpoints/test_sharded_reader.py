"""Reading a checkpoint in parts: whole, or refused; a folder may come from anybody."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.errors import CheckpointCorruptError
from darkit.runs import files
from darkit.runs.checkpoints import folder_path, list_checkpoints, manifest_path
from darkit.runs.sharded import make_manifest

WHOLE = torch.arange(12.0).reshape(4, 3)
INDEX: dict[str, Any] = {
    "path": ["state_dict", "w"],
    "dtype": "float32",
    "shape": [4, 3],
    "parts": [["shard-0.pth", 0, [0, 0], [3, 3]], ["shard-1.pth", 0, [3, 0], [1, 3]]],
}


def save(run: Path, entries: Any = None, **content: Any) -> dict[str, Any]:
    """Write a folder as darkit does, with a manifest that fits, and read it."""
    folder = folder_path(run, 1)
    folder.mkdir()
    given = {"shard-0": {0: WHOLE[:3].clone()}, "shard-1": {0: WHOLE[3:].clone()}}
    given["state"] = {"state_dict": {"w": None, "b": torch.ones(2)}, "list": [1, None], "tuple": (None,)}
    for name, value in (given | content).items():
        torch.save(value, folder / f"{name}.pth")
    (folder / "index.json").write_text(json.dumps({"tensors": [INDEX] if entries is None else entries}))
    parts = {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in folder.iterdir()
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
        "invalid literal|names a file",
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
