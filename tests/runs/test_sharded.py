"""Checkpoints that are folders: complete under their manifest, or not there. No torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import files
from darkit.runs.checkpoints import (
    candidates,
    checkpoint_path,
    checkpoint_steps,
    find_checkpoint,
    folder_path,
    latest_checkpoint,
    list_checkpoints,
    manifest_path,
)
from darkit.runs.retention import Retention, remove_files
from darkit.runs.sharded import make_manifest, temporary_folder
from darkit.runs.verify import find_problem
from tests.runs.parts import names_in


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", b"weights")


def save(run: Path, step: int, **facts: Any) -> Path:
    folder = folder_path(run, step)
    folder.mkdir()
    for name in ("shard-0.pth", "shard-1.pth", "state.pth"):
        archive(folder / name)
    (folder / "index.json").write_text("{}")
    parts = {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in folder.iterdir()
    }
    files.write_json(manifest_path(folder), make_manifest(parts, {"step": step, "metrics": {}, **facts}))
    return folder


def test_a_folder_is_a_checkpoint_beside_files(tmp_path: Path) -> None:
    save(tmp_path, 4, metrics={"val_loss": 0.5})
    checkpoint_path(tmp_path, 2).write_bytes(b"weights")
    assert checkpoint_steps(tmp_path) == [2, 4]
    (first, second) = list_checkpoints(tmp_path)
    assert (first.is_folder, second.is_folder) == (False, True)
    assert (second.name, second.metrics, second.verified, second.problem) == (
        "iter-4-ckpt",
        {"val_loss": 0.5},
        True,
        "",
    )
    assert second.size == sum(path.stat().st_size for path in second.path.iterdir())
    assert find_problem(second) == ""
    assert (
        latest_checkpoint(tmp_path)
        == second
        == find_checkpoint(tmp_path, "iter-4-ckpt")
        == find_checkpoint(tmp_path, 4)
    )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = manifest_path(folder)
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: manifest_path(folder).unlink(), "its save was not completed"),
    "a file is gone": (lambda folder: (folder / "shard-1.pth").unlink(), "its file shard-1.pth is missing"),
    "a file is longer": (lambda folder: (folder / "index.json").write_text("{} "), "index.json has 3 bytes where"),
    "a file is a link": (
        lambda folder: ((folder / "state.pth").unlink(), (folder / "state.pth").symlink_to("shard-0.pth")),
        "its file state.pth is not a regular file",
    ),
    "a file outside": (
        lambda folder: rewrite(folder, lambda manifest: manifest["files"].update({"../x.pth": {}})),
        "lists files that no checkpoint has",
    ),
    "a file less in the list": (
        lambda folder: rewrite(folder, lambda manifest: manifest["files"].pop("shard-1.pth")),
        "the sha256 of its manifest is not that of the files",
    ),
    "no index in the list": (
        lambda folder: rewrite(folder, lambda manifest: manifest["files"].pop("index.json")),
        "does not list index.json and state.pth",
    ),
    "no list": (lambda folder: rewrite(folder, lambda manifest: manifest.pop("files")), "does not list its files"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_complete_is_never_taken(tmp_path: Path, damage: str) -> None:
    before = save(tmp_path, 3)
    folder = save(tmp_path, 5)
    change, said = DAMAGE[damage]
    change(folder)
    checkpoint = list_checkpoints(tmp_path)[-1]
    assert said in checkpoint.problem
    assert not checkpoint.verified
    assert find_problem(checkpoint) == checkpoint.problem
    assert [found.path for found in candidates(tmp_path)] == [before]
    assert latest_checkpoint(tmp_path) == list_checkpoints(tmp_path)[0]


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    data = bytearray((folder / "shard-0.pth").read_bytes())
    data[-1] ^= 1
    (folder / "shard-0.pth").write_bytes(data)
    (checkpoint,) = list_checkpoints(tmp_path)
    assert checkpoint.problem == ""
    assert find_problem(checkpoint) == "the sha256 of its file shard-0.pth is not the one in its manifest"


def test_a_file_that_no_torch_save_made_is_found_whatever_the_manifest_says(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    with zipfile.ZipFile(folder / "shard-0.pth", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", b"0" * 1000)
    data = (folder / "shard-0.pth").read_bytes()
    listed = {
        name: (entry["size"], entry["sha256"])
        for name, entry in files.read_json(manifest_path(folder))["files"].items()
    }
    listed["shard-0.pth"] = (len(data), hashlib.sha256(data).hexdigest())
    files.write_json(manifest_path(folder), make_manifest(listed, {}))
    (checkpoint,) = list_checkpoints(tmp_path)
    assert (
        find_problem(checkpoint)
        == "its file shard-0.pth cannot be trusted: it is compressed, which torch.save never does"
    )


def test_retention_deletes_folders_and_those_that_were_not_completed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    manifest_path(folder_path(tmp_path, 2)).unlink()
    for checkpoint in Retention(last=1).superseded(list_checkpoints(tmp_path)):
        remove_files(checkpoint.path)
    assert names_in(tmp_path) == ["iter-3-ckpt", "iter-3-ckpt.json"]


def test_a_deletion_that_is_interrupted_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path, 3)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            remove_files(folder)
    assert list_checkpoints(tmp_path) == []
    files.remove_leftovers(tmp_path)
    assert names_in(tmp_path) == []


def test_a_folder_that_is_being_written_is_not_counted_and_removed_as_a_leftover(tmp_path: Path) -> None:
    save(tmp_path, 3).rename(temporary_folder(folder_path(tmp_path, 3), "ab"))
    (tmp_path / ".iter-4-ckpt.tmp-cd").symlink_to(tmp_path.parent)
    assert (checkpoint_steps(tmp_path), list_checkpoints(tmp_path)) == ([], [])
    files.remove_leftovers(tmp_path)
    assert names_in(tmp_path) == ["iter-3-ckpt.json"]
    assert tmp_path.parent.exists()


def test_of_a_file_and_a_folder_of_one_step_the_one_of_the_manifest_counts(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    path = checkpoint_path(tmp_path, 3)
    path.write_bytes(b"weights")
    assert [checkpoint.path for checkpoint in list_checkpoints(tmp_path)] == [folder]
    files.write_json(manifest_path(path), {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()})
    assert [checkpoint.path for checkpoint in list_checkpoints(tmp_path)] == [path]
