"""darkit's checkpoint files in a stock trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from darkit.engine.checkpoints.plugin import DurableCheckpointIO
from darkit.errors import CheckpointCorruptError, CheckpointUnreadableError, ConfigError, StorageError
from darkit.runs.checkpoints import describe_checkpoint
from darkit.runs.verify import find_problem
from tests.engine.parts import equal_weights, in_order
from tests.runs.parts import names_in

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


class Foreign(lightning.LightningModule):
    """A module without darkit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Linear(4, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.log("score", float((self.global_step + 1) % 3))
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def stock(folder: Path, *callbacks: Any, **options: Any) -> lightning.Trainer:
    settings: dict[str, Any] = {"max_steps": 6, "plugins": [DurableCheckpointIO()]} | options
    return lightning.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def test_a_stock_trainer_saves_files_with_manifests_and_resumes_from_them(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, save_last=True, filename="{step}")
    straight = Foreign()
    stock(tmp_path, saver).fit(straight, in_order())
    names = ["last", "step=2", "step=4", "step=6"]
    assert names_in(tmp_path) == sorted(f"{name}.{ending}" for name in names for ending in ("ckpt", "json"))
    for name in names:
        found = describe_checkpoint(tmp_path / f"{name}.ckpt")
        assert found is not None
        assert found.verified
        assert find_problem(found) == ""
    resumed = Foreign()
    trainer = stock(tmp_path / "other", enable_checkpointing=False)
    trainer.fit(resumed, in_order(), ckpt_path=str(tmp_path / "step=4.ckpt"))
    assert trainer.global_step == 6
    assert equal_weights(resumed, straight)


def test_top_k_removes_a_checkpoint_with_its_manifest(tmp_path: Path) -> None:
    saver = ModelCheckpoint(
        tmp_path, monitor="score", mode="max", every_n_train_steps=1, save_top_k=2, filename="{step}"
    )
    stock(tmp_path, saver).fit(Foreign(), in_order())
    assert names_in(tmp_path) == ["step=2.ckpt", "step=2.json", "step=5.ckpt", "step=5.json"]
    assert sorted(Path(path).name for path in saver.best_k_models) == ["step=2.ckpt", "step=5.ckpt"]


def test_a_damaged_file_is_not_gone_on_from(tmp_path: Path) -> None:
    stock(tmp_path, ModelCheckpoint(tmp_path, filename="a", every_n_train_steps=6)).fit(Foreign(), in_order())
    path = tmp_path / "a.ckpt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointCorruptError, match="its sha256 is not the one in its manifest"):
        stock(tmp_path, enable_checkpointing=False, max_steps=9).fit(Foreign(), in_order(), ckpt_path=str(path))


def test_loading_waits_for_the_file(tmp_path: Path) -> None:
    plugin = DurableCheckpointIO()
    path = tmp_path / "new" / "a.ckpt"
    plugin.save_checkpoint({"state_dict": {"w": torch.ones(2)}, "global_step": 3}, path)
    assert plugin.load_checkpoint(path)["global_step"] == 3
    plugin.remove_checkpoint(path)
    plugin.teardown()
    assert names_in(path.parent) == []
    with pytest.raises(CheckpointCorruptError, match=r"a\.ckpt does not exist"):
        plugin.load_checkpoint(path)


def test_options_for_remote_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"take no storage options, but got \{'key': 1\}"):
        DurableCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"key": 1})


def test_an_error_of_the_thread_ends_the_stock_training_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "step=2.json").mkdir(parents=True)  # its manifest cannot be written
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    with pytest.raises(StorageError, match=r"Cannot write .*step=2\.ckpt: Is a directory"):
        stock(tmp_path, saver).fit(Foreign(), in_order())


def test_hyperparameters_that_cannot_be_read_back_are_refused_when_they_are_saved(tmp_path: Path) -> None:
    class Own:
        """Not a plain value."""

    plugin = DurableCheckpointIO()
    globals()["Own"] = Own
    Own.__qualname__ = "Own"
    plugin.save_checkpoint({"state_dict": {}, "hyper_parameters": {"own": Own()}}, tmp_path / "a.ckpt")
    with pytest.raises(
        CheckpointUnreadableError, match=r"hyper_parameters\.own needs tests\.engine\.checkpoints\.test_plugin\.Own"
    ):
        plugin.teardown()
    assert names_in(tmp_path) == []
