"""Runs of experiments with several seeds, as far as a comparison reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darkit.runs import files


def make_run(
    root: Path, name: str, losses: Sequence[float | None], *, seed: int = 0, state: str = "finished", **settings: Any
) -> Path:
    """Write a run with a row for each loss; ``settings`` are further ones of the trainer."""
    folder = root / name
    folder.mkdir(parents=True)
    info = {"id": name, "created": len(list(root.iterdir())), "model": {"class": "demo.MLP"}, "data": {"samples": 8}}
    files.write_json(folder / files.RUN, {**info, "seed": seed, "project": settings.get("project")})
    files.write_json(folder / files.MODEL_CONFIG, {"width": 64})
    files.write_json(folder / files.TRAINER_CONFIG, {"name": name, "lr": 1e-3, "seed": seed, **settings})
    files.write_json(folder / files.STATUS, {"state": state, "step": len(losses), "max_step": len(losses)})
    rows = [f"{step},{'' if loss is None else loss},{step}" for step, loss in enumerate(losses, 1)]
    (folder / files.LOG).write_text("\n".join(["step,val_loss,lr", *rows, ""]))
    return folder
