"""A tiny training of transformers' Trainer, with everything seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

SETTINGS: dict[str, Any] = {
    "max_steps": 12,
    "logging_steps": 1,
    "save_steps": 4,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.01,
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 3,
}


def rows() -> list[dict[str, torch.Tensor]]:
    drawn = torch.randint(0, 50, (32, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in drawn]


def trainer(folder: Path, callbacks: list[Any], model: Any = None, **changed: Any) -> Trainer:
    arguments = TrainingArguments(output_dir=str(folder), **{**SETTINGS, **changed})
    if model is None:
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))
    data = rows()
    return Trainer(model, arguments, train_dataset=data, eval_dataset=data[:8], callbacks=callbacks)
