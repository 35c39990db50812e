"""A record of the training data: a digest of every batch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

from lightning import Callback, LightningModule, Trainer

from darkit.engine.data.fingerprint import add_to_digest
from darkit.engine.steps.adapter import Adapter


class RecordBatches(Callback):
    """Append ``epoch,batch,sha256`` to a file for every batch trained on, at once and in whole lines.

    Args:
        path: The file; an existing one is appended to, and a missing folder is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._last: tuple[int, int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self._last = (trainer.current_epoch, pl_module.feed.batches - 1) if isinstance(pl_module, Adapter) else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        number = pl_module.feed.batches - 1 if isinstance(pl_module, Adapter) else batch_idx
        place = (trainer.current_epoch, number)
        if self._file is None or place == self._last:  # a stretch of steps or an epoch may end with one more call
            return
        self._last = place
        digest = hashlib.sha256()
        add_to_digest(digest, batch)
        self._file.write(f"{place[0]},{place[1]},{digest.hexdigest()}\n".encode())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
