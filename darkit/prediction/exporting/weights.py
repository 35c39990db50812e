"""Weights alone, as safetensors or for `torch.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.errors import ConfigError
from darkit.runs import Run
from darkit.runs.checkpoints import Checkpoint


def export_safetensors(run: Run, wanted: str | None, output: Path) -> str:
    """Write the weights as safetensors; those that share memory are written out each.

    Raises:
        ConfigError: The state holds something other than tensors.
    """
    from safetensors.torch import save

    checkpoint, content = read_run_checkpoint(run.path, wanted)
    weights = content["state_dict"]
    others = [key for key, value in weights.items() if not hasattr(value, "detach")]
    if others:
        raise ConfigError(f"safetensors stores tensors only, and {others[0]!r} is not a tensor. Use --format torch.")
    tensors = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    facts = {"format": "pt", "model_class": str(content.get("model_class", "")), "step": str(checkpoint.step)}
    output.write_bytes(save(tensors, metadata=facts))
    return _written(weights, run, checkpoint)


def export_torch(run: Run, wanted: str | None, output: Path) -> str:
    """Write the weights for ``torch.load(weights_only=True)``."""
    checkpoint, content = read_run_checkpoint(run.path, wanted)
    with output.open("wb") as file:
        torch.save(content["state_dict"], file)
    return _written(content["state_dict"], run, checkpoint)


def _written(weights: dict[str, Any], run: Run, checkpoint: Checkpoint) -> str:
    return f"{len(weights)} tensors of {run.name}:{checkpoint.name}"
