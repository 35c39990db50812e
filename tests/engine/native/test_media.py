"""Media of a LightningModule: from the step's dict, from self.log, and in a stock trainer."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from torch import Tensor

import darkit
from darkit.errors import MediaError
from darkit.runs.media import read_media
from tests.engine.native.modules import Base, train_loader, val_loader

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Draws(Base):
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        loss: Tensor = self.loss(batch)
        self.log("loss_logged", loss)
        if batch_idx == 2:
            self.log("drawn", darkit.Image(torch.zeros(3, 4, 4)))
        return {"loss": loss, **({"said": darkit.Text(f"batch {batch_idx}")} if batch_idx % 3 == 0 else {})}

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log_dict({"spread": darkit.Histogram([1.0, 2.0]), "number": 1.0})


EXPECTED = [
    *(("said", 1), ("drawn", 3), ("said", 4), ("said", 7), ("spread", 7)),
    *(("said", 8), ("drawn", 10), ("said", 11), ("said", 14), ("spread", 14)),
]


def test_in_fit() -> None:
    run = darkit.fit(Draws(), train_loader(), val_loader(), name="run", max_epochs=2, device="cpu", log_step_interval=5)
    found = [(medium.key, medium.step) for medium in read_media(run.path)]
    assert sorted(found, key=lambda one: (one[1], one[0])) == sorted(EXPECTED, key=lambda one: (one[1], one[0]))
    assert "number" in run.log().columns


def test_in_a_stock_trainer() -> None:
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[darkit.RunRecorder("run")],
    ).fit(Draws(), train_loader(), val_loader())
    found = [(medium.key, medium.step) for medium in read_media(darkit.load("run").path)]
    assert sorted(found, key=lambda one: (one[1], one[0])) == sorted(EXPECTED, key=lambda one: (one[1], one[0]))


def test_what_cannot_be_encoded_is_refused() -> None:
    class Wrong(Base):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("wrong", darkit.Image("missing.png"))

    with pytest.raises(MediaError, match="wrong"):
        darkit.fit(Wrong(), train_loader(), name="run", max_steps=2, device="cpu")
