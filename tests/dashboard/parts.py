"""Run directories made by hand, in the format that the trainer writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from darkit.runs import files

STARTED = 1_760_000_000.0
T = TypeVar("T")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: this one has a loop already where a browser was driven before."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asyncio.wait_for(coroutine, 60)).result()


def make_run(
    root: Path,
    name: str,
    rows: int = 200,
    *,
    state: str = "finished",
    host: str = "elsewhere",
    seed: int = 0,
    lr: float = 1e-3,
    max_step: int | None = None,
    series: dict[str, list[str]] | None = None,
    config: dict[str, Any] | None = None,
    losses: dict[int, float] | None = None,
    columns: tuple[str, ...] = ("step", "epoch", "time", "lr", "train_loss", "val_loss"),
    **status: Any,
) -> Path:
    """Write a run of ``rows`` rows; ``losses`` replaces the loss of single steps."""
    folder = root / name
    folder.mkdir(parents=True)
    facts = {
        "id": f"{seed:032x}",
        "name": name,
        "created": STARTED + seed,
        "model": {"class": "demo.MLP", "config_kind": "dataclass", "config_class": "demo.Config"},
        "series": series or {"train_loss": ["step", "train_loss"], "val_loss": ["step", "val_loss"]},
        "seed": seed,
        "data": {"kind": "tensors", "sample": "(float32[2], float32[1])"},
        "versions": {"python": "3.11", "torch": "2.13"},
        "git": {"commit": "0" * 40, "diff": "-old\n+new"},
        "command": ["python", "train.py", "a b"],
        "host": {"name": "box", "system": "Linux"},
    }
    files.write_json(folder / files.RUN, facts)
    files.write_json(folder / files.MODEL_CONFIG, config or {"width": 64 + seed, "act": "gelu", "nested": {"p": 0.1}})
    files.write_json(folder / files.TRAINER_CONFIG, {"name": name, "device": "cpu", "lr": lr, "seed": seed})
    beat = time.time() if state == "running" else STARTED + rows
    told = {"state": state, "step": rows, "max_step": max_step or rows, "started": STARTED + seed, "heartbeat": beat}
    files.write_json(folder / files.STATUS, {**told, "host": host, "pid": 1, "reason": "", "traceback": "", **status})
    write_log(folder, rows, seed=seed, losses=losses, columns=columns)
    return folder


def write_log(
    folder: Path,
    rows: int,
    *,
    seed: int = 0,
    losses: dict[int, float] | None = None,
    columns: tuple[str, ...] = ("step", "epoch", "time", "lr", "train_loss", "val_loss"),
) -> None:
    lines = [",".join(columns)]
    lines += [row(step, loss_at(step, rows, seed, losses)) for step in range(1, rows + 1)]
    (folder / files.LOG).write_text("\n".join(lines) + "\n", encoding="utf-8")


def add_columns(folder: Path, columns: dict[str, Callable[[int], object]]) -> None:
    """Add columns to a log, each a function of the step."""
    head, *lines = (folder / files.LOG).read_text().splitlines()
    more = [[str(value(int(line.split(",")[0]))) for value in columns.values()] for line in lines]
    lines = [",".join([line, *values]) for line, values in zip(lines, more, strict=True)]
    (folder / files.LOG).write_text("\n".join([",".join([head, *columns]), *lines]) + "\n")


def row(step: int, loss: float) -> str:
    shown = "NaN" if loss != loss else repr(loss)
    return f"{step},{step // 100},{STARTED + step * 0.01!r},0.001,{shown},{shown if step % 50 == 0 else ''}"


def loss_at(step: int, rows: int, seed: int = 0, losses: dict[int, float] | None = None) -> float:
    if losses and step in losses:
        return losses[step]
    noise = np.sin(step * 12.9898 + seed) * 0.05
    return float(3 * np.exp(-4 * step / rows) + 0.4 + noise)
