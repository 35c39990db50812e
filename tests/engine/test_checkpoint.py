"""Checkpoint files: what they hold, that they load strictly, and what is said when they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from darkit.engine.checkpoint import load_weights, read_checkpoint, read_run_checkpoint, write_checkpoint
from darkit.errors import CheckpointCorruptError, CheckpointMismatchError, CheckpointNotFoundError, StorageError
from darkit.runs.checkpoints import find_checkpoint, list_checkpoints
from tests.engine.parts import MLP, equal_weights, made, train, xy


def save(folder: Path, model: nn.Module, step: int = 3) -> Path:
    content = {"state_dict": model.state_dict(), "model_class": "their.Model", "current_step": step}
    return write_checkpoint(folder, step, content, metrics={"train_loss": 0.5}, run_id="r")


def test_a_runs_checkpoint_holds_what_the_guide_says_and_loads_strictly() -> None:
    model = made()
    run = train(model, xy(), scheduler="cosine")
    content = torch.load(run.path / "iter-6-ckpt.pth", weights_only=True)
    again = made(seed=1)
    again.load_state_dict(content["state_dict"], strict=True)
    assert equal_weights(again, model)
    assert content["current_step"] == 6
    assert content["model_class"] == f"{MLP.__module__}.MLP"
    torch.optim.AdamW(again.parameters()).load_state_dict(content["optimizer_state_dict"])
    assert content["scheduler_state_dict"]["last_epoch"] == 6
    assert content["position"]["epoch"] == 1
    assert content["position"]["batches"] == 2


def test_the_manifest_tells_size_digest_step_metrics_and_run() -> None:
    run = train(made(), xy())
    manifest = json.loads((run.path / "iter-6-ckpt.json").read_text())
    assert manifest["size"] == (run.path / "iter-6-ckpt.pth").stat().st_size
    assert len(manifest["sha256"]) == 64
    assert (manifest["step"], manifest["run_id"]) == (6, run.info["id"])
    assert manifest["metrics"]["train_loss"] == run.log()["train_loss"][-1]


def test_what_was_written_is_read_back_verified(tmp_path: Path) -> None:
    model = made()
    save(tmp_path, model)
    content = read_checkpoint(find_checkpoint(tmp_path))
    again = made(seed=1)
    load_weights(again, content)
    assert equal_weights(again, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iter-3-ckpt.json", "iter-3-ckpt.pth"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_file_is_refused_and_named(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path, made())
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-1]), "empty": b"", "text": b"hello"}[damage])
    (checkpoint,) = list_checkpoints(tmp_path)
    with pytest.raises(CheckpointCorruptError, match=r"iter-3-ckpt\.pth"):
        read_checkpoint(checkpoint)


def test_without_a_manifest_a_good_file_is_read_and_a_bad_one_refused(tmp_path: Path) -> None:
    path = save(tmp_path, made())
    (tmp_path / "iter-3-ckpt.json").unlink()
    assert read_checkpoint(find_checkpoint(tmp_path))["current_step"] == 3
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointCorruptError, match=r"iter-3-ckpt\.pth (is damaged|cannot be read)") as caught:
        read_checkpoint(find_checkpoint(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "iter-3-ckpt.pth")
    with pytest.raises(CheckpointCorruptError, match="is no checkpoint: it holds no 'state_dict'"):
        read_checkpoint(find_checkpoint(tmp_path))


class Executed:
    def __reduce__(self) -> Any:
        return (Path("executed").touch, ())


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Executed()}, tmp_path / "iter-3-ckpt.pth")
    with pytest.raises(CheckpointCorruptError):
        read_checkpoint(find_checkpoint(tmp_path))
    assert not (tmp_path / "executed").exists()


def test_the_latest_that_can_be_trusted_is_read_and_a_named_one_is_never_replaced(tmp_path: Path) -> None:
    save(tmp_path, made(), 3)
    save(tmp_path, made(), 5).write_bytes(b"hello")
    checkpoint, content = read_run_checkpoint(tmp_path)
    assert checkpoint.step == content["current_step"] == 3
    with pytest.raises(CheckpointCorruptError, match="iter-5-ckpt"):
        read_run_checkpoint(tmp_path, 5)


def test_where_none_can_be_trusted_or_there_is_none_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        read_run_checkpoint(tmp_path)
    save(tmp_path, made(), 5).write_bytes(b"hello")
    with pytest.raises((CheckpointCorruptError, CheckpointNotFoundError)):
        read_run_checkpoint(tmp_path)


def test_weights_of_another_model_are_refused_with_both_classes_and_the_first_differing_keys() -> None:
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    content = {"state_dict": made().state_dict(), "model_class": "their.MLP"}
    with pytest.raises(CheckpointMismatchError) as caught:
        load_weights(other, content)
    said = str(caught.value)
    assert "their.MLP" in said
    assert "torch.nn.modules.container.Sequential" in said
    assert "'0.weight' is missing" in said
    assert "and 7 more" in said
    assert "\n" not in said


def test_weights_of_another_shape_are_refused_and_the_model_keeps_its_own() -> None:
    model, before = made(hidden=6), made(hidden=6)
    with pytest.raises(CheckpointMismatchError, match=r"'layers\.0\.weight' has shape \(8, 4\) where \(6, 4\) fits"):
        load_weights(model, {"state_dict": made(hidden=8).state_dict()})
    assert equal_weights(model, before)


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"iter-3-ckpt\.pth"):
        save(tmp_path / "gone", made())


def test_content_that_cannot_be_saved_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"pickle|lambda|local"):
        write_checkpoint(tmp_path, 1, {"state_dict": lambda: None}, metrics={}, run_id="")
    assert list(tmp_path.iterdir()) == []
