"""Someone else's LightningModule, and the stock trainer that it is trained with."""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.parts import in_order


class Foreign(lightning.LightningModule):
    """Knows nothing of darkit: automatic optimisation, dropout, a schedule by steps, and what `self.log` does."""

    def __init__(self, fail_at: int = -1, skip_at: int = -1, nan_at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.fail_at, self.skip_at, self.nan_at = fail_at, skip_at, nan_at
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        if len(self.losses) == self.fail_at:
            raise ZeroDivisionError("theirs")
        x, y = batch
        loss = F.mse_loss(self.layers(x), y)
        if len(self.losses) == self.nan_at:
            loss = loss * float("nan")
        self.losses.append(loss.item())
        self.log("own", loss)
        if len(self.losses) - 1 == self.skip_at:
            return None
        return {"loss": loss, "absolute": loss.detach().sqrt(), "hidden": x}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def stock_fit(
    module: lightning.LightningModule, *callbacks: lightning.Callback, data: Any = None, **options: Any
) -> lightning.Trainer:
    """Train with Lightning alone."""
    torch.manual_seed(1)
    settings: dict[str, Any] = options if "max_epochs" in options else {"max_steps": 6} | options
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, in_order() if data is None else data)
    return trainer


class WatchOutputs(lightning.Callback):
    """Keeps, after every optimizer step, what the callbacks before it left in the outputs."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step not in self.rows:
            self.rows[trainer.global_step] = {
                key: float(value) for key, value in outputs.items() if not isinstance(value, Tensor) or value.ndim == 0
            }
