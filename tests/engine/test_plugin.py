"""darkit's writing in a trainer that knows nothing else of darkit."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from darkit.engine.plugin import DurableCheckpointIO
from darkit.errors import CheckpointCorruptError, ConfigError, StorageError
from darkit.runs import files
from darkit.runs.checkpoints import describe_checkpoint
from darkit.runs.verify import find_problem
from tests.engine.parts import in_order
from tests.runs.parts import names_in


class Foreign(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Linear(4, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def stock(folder: Path, steps: int, **options: Any) -> lightning.Trainer:
    saving = ModelCheckpoint(folder, save_top_k=-1, every_n_train_steps=2, filename="{step}")
    return lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def fit(trainer: lightning.Trainer, module: Foreign, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, in_order(), **options)


def test_a_stock_trainer_saves_through_it_and_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    straight, broken = Foreign(), Foreign()
    fit(stock(tmp_path / "straight", 6), straight)
    fit(stock(tmp_path / "ours", 4, plugins=[DurableCheckpointIO()]), broken)
    found = describe_checkpoint(tmp_path / "ours" / "step=4.ckpt")
    assert found is not None
    assert found.verified
    assert find_problem(found) == ""
    assert files.read_json(found.path.with_suffix(".json"))["step"] == 4
    resumed = Foreign()
    fit(stock(tmp_path / "ours", 6, plugins=[DurableCheckpointIO()]), resumed, ckpt_path=str(found.path))
    assert torch.equal(straight.layers.weight, resumed.layers.weight)
    assert not any(thread.name.startswith("darkit-checkpoint") for thread in threading.enumerate())


def test_what_a_stock_trainer_deletes_goes_with_its_manifest(tmp_path: Path) -> None:
    trainer = stock(tmp_path, 6, plugins=[DurableCheckpointIO()])
    trainer.callbacks[-1].save_top_k = 1  # type: ignore[attr-defined]
    fit(trainer, Foreign())
    assert len(names_in(tmp_path)) == 2


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    plugin = DurableCheckpointIO()
    path = tmp_path / "a.ckpt"
    plugin.save_checkpoint({"state_dict": {"w": torch.zeros(100)}, "global_step": 7}, path)
    assert plugin.load_checkpoint(path)["global_step"] == 7, "it waits for what it is writing"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointCorruptError, match="is damaged"):
        plugin.load_checkpoint(path)
    path.unlink()
    with pytest.raises(CheckpointCorruptError, match="is gone"):
        plugin.load_checkpoint(path)
    plugin.teardown()


def test_options_of_a_remote_storage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="take no options such as {'key': 1}"):
        DurableCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt", {"key": 1})
    assert names_in(tmp_path) == []


def test_an_error_of_the_thread_comes_at_the_next_save_or_at_the_end(tmp_path: Path) -> None:
    plugin = DurableCheckpointIO()
    (tmp_path / "a.ckpt").mkdir()
    plugin.save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(StorageError, match=r"a\.ckpt"):
        plugin.save_checkpoint({"state_dict": {}}, tmp_path / "b.ckpt")
    plugin.save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(StorageError, match=r"a\.ckpt"):
        plugin.teardown()
