from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from darkit.errors import CheckpointNotFoundError
from darkit.runs import files
from darkit.runs.checkpoints import (
    Checkpoint,
    checkpoint_path,
    find_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    manifest_path,
)


def save(folder: Path, step: int, content: bytes = b"weights", **manifest: Any) -> Path:
    path = checkpoint_path(folder, step)
    path.write_bytes(content)
    files.write_json(manifest_path(path), {"size": len(content), "sha256": "ab", "metrics": {}, **manifest})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "gpt"
    folder.mkdir()
    return folder


def test_names_are_those_of_the_format(tmp_path: Path) -> None:
    assert checkpoint_path(tmp_path, 400) == tmp_path / "iter-400-ckpt.pth"
    assert manifest_path(tmp_path / "iter-400-ckpt.pth") == tmp_path / "iter-400-ckpt.json"


def test_checkpoints_are_listed_by_step_with_what_their_manifests_tell(folder: Path) -> None:
    for step in (1000, 5, 200):
        save(folder, step, b"x" * step, metrics={"val_loss": step / 8})
    assert list_checkpoints(folder) == [
        Checkpoint(step, checkpoint_path(folder, step), step, "ab", {"val_loss": step / 8}) for step in (5, 200, 1000)
    ]
    assert [checkpoint.name for checkpoint in list_checkpoints(folder)] == [
        "iter-5-ckpt",
        "iter-200-ckpt",
        "iter-1000-ckpt",
    ]


def test_a_checkpoint_without_manifest_is_unverified_and_not_lost(folder: Path) -> None:
    checkpoint_path(folder, 3).write_bytes(b"weights")
    assert list_checkpoints(folder) == [Checkpoint(3, checkpoint_path(folder, 3), 7)]
    assert latest_checkpoint(folder) == Checkpoint(3, checkpoint_path(folder, 3), 7)


def test_other_files_are_no_checkpoints(folder: Path) -> None:
    for name in (
        "iter-7-ckpt.json",
        ".iter-7-ckpt.pth.tmp-1-1",
        "iter--1-ckpt.pth",
        "iter-007-ckpt.pth",
        "iter-٣-ckpt.pth",
        "iter-best-ckpt.pth",
        "iter-7-ckpt.pth.bak",
        "xiter-7-ckpt.pth",
    ):
        (folder / name).write_bytes(b"x")
    (folder / "iter-8-ckpt.pth").mkdir()
    assert list_checkpoints(folder) == []
    assert latest_checkpoint(folder) is None
    assert list_checkpoints(folder / "missing") == []


def test_latest_is_the_highest_step_that_has_its_size_and_the_log_says_what_was_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder, 100)
    save(folder, 200)
    save(folder, 300).write_bytes(b"torn")
    save(folder, 400).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        latest = latest_checkpoint(folder)
    assert latest is not None
    assert latest.step == 200
    assert caplog.messages == [
        "Skipped iter-400-ckpt of run 'gpt': it has 0 bytes where its manifest says 7",
        "Skipped iter-300-ckpt of run 'gpt': it has 4 bytes where its manifest says 7",
    ]
    assert [bool(checkpoint.problem) for checkpoint in list_checkpoints(folder)] == [False, False, True, True]


def test_without_any_to_trust_there_is_no_latest(folder: Path) -> None:
    save(folder, 100).write_bytes(b"torn")
    assert latest_checkpoint(folder) is None
    for wanted in (None, "latest"):
        with pytest.raises(CheckpointNotFoundError, match=r"^The run 'gpt' has no checkpoint yet\.$"):
            find_checkpoint(folder, wanted)


def test_metrics_are_numbers_and_null_was_nan(folder: Path) -> None:
    save(folder, 1, metrics={"loss": math.nan, "best": math.inf, "note": "x", "acc": 1})
    metrics = list_checkpoints(folder)[0].metrics
    assert math.isnan(metrics.pop("loss"))
    assert metrics == {"best": math.inf, "acc": 1}


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b'{"sha256": 3, "metrics": [1]}', b'{"sha256": null, "metrics": null}']
)
def test_a_garbled_manifest_makes_it_unverified(folder: Path, manifest: bytes) -> None:
    manifest_path(save(folder, 1)).write_bytes(manifest)
    assert list_checkpoints(folder) == [Checkpoint(1, checkpoint_path(folder, 1), 7)]


@pytest.mark.parametrize("size", ["7", None, [], -1])
def test_a_size_that_is_not_the_files_is_a_problem_whatever_it_is(folder: Path, size: object) -> None:
    save(folder, 1, size=size)
    assert list_checkpoints(folder)[0].problem == f"it has 7 bytes where its manifest says {size}"


@pytest.mark.parametrize("wanted", ["iter-400-ckpt", "iter-400-ckpt.pth", "400", 400])
def test_a_checkpoint_is_found_by_any_of_its_names(folder: Path, wanted: str | int) -> None:
    for step in (300, 400, 500):
        save(folder, step)
    assert find_checkpoint(folder, wanted).step == 400
    assert find_checkpoint(folder).step == find_checkpoint(folder, "latest").step == 500


def test_a_damaged_checkpoint_that_is_asked_for_is_found_with_its_problem(folder: Path) -> None:
    save(folder, 300).write_bytes(b"torn")
    assert find_checkpoint(folder, 300).problem


def test_a_missing_checkpoint_lists_what_there_is_nearest_first(folder: Path) -> None:
    for step in (50, 300, 400, *range(1000, 2000, 100)):
        save(folder, step)
    with pytest.raises(CheckpointNotFoundError) as caught:
        find_checkpoint(folder, 360)
    assert str(caught.value) == (
        "The run 'gpt' has no checkpoint 360. Available, nearest first: iter-400-ckpt, iter-300-ckpt, iter-50-ckpt, "
        "iter-1000-ckpt, iter-1100-ckpt, iter-1200-ckpt, iter-1300-ckpt, iter-1400-ckpt and 5 more."
    )


@pytest.mark.parametrize("wanted", ["itr-300-ckpt", "best", "", "9" * 5000, "²", "-1", "../iter-300-ckpt"])
def test_what_is_no_step_lists_what_there_is(folder: Path, wanted: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match="Available: none"):
        find_checkpoint(folder, wanted)
    save(folder, 300)
    with pytest.raises(CheckpointNotFoundError, match="Available: iter-300-ckpt") as caught:
        find_checkpoint(folder, wanted)
    assert ("Did you mean 'iter-300-ckpt'?" in str(caught.value)) == wanted.endswith("300-ckpt")


def test_a_linked_checkpoint_is_listed_with_its_problem_and_never_taken(tmp_path: Path) -> None:
    folder = tmp_path / "gpt"
    folder.mkdir()
    (tmp_path / "elsewhere.pth").write_bytes(b"1")
    for step, target in ((5, tmp_path / "elsewhere.pth"), (9, tmp_path / "nothing")):
        (folder / f"iter-{step}-ckpt.pth").symlink_to(target)
    assert [one.problem for one in list_checkpoints(folder)] == ["it is a link, which is not followed"] * 2
    assert latest_checkpoint(folder) is None
