"""The configs and the tokenizer as files of the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from darkit.engine.description.describe import ModelDescription
from darkit.engine.description.exports import write_exports
from darkit.engine.steps.adapter import bare_module


class ExportConfigs(Callback):
    """Write ``config.json``, ``trainer_config.json``, ``tokenizer.json`` and ``model.py`` before the first step.

    Args:
        folder: The run directory.
        config: The trainer's config, or anything with public values; None writes none.
        tokenizer: A `tokenizers.Tokenizer`, a transformers tokenizer, or None.
        description: How the model can be rebuilt; None determines it.
    """

    def __init__(
        self, folder: Path, config: Any = None, tokenizer: Any = None, description: ModelDescription | None = None
    ) -> None:
        self.folder = folder
        self.config = config
        self.tokenizer = tokenizer
        self.description = description

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_exports(self.folder, bare_module(pl_module), self.config, self.tokenizer, self.description)
