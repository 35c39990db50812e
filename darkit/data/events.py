"""Events as an event camera sends them, made by a generator: a disk that moves in one of eight directions.

A pixel sends an event when it becomes brighter (channel 0) or darker (channel 1), and now and then for no reason, as
real ones do (Gallego et al., Event-based vision, 2020).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from darkit.data.objectives.labels import check_size, classification_loss
from darkit.data.objectives.tables import TableRows
from darkit.data.sources.choice import DataChoice
from darkit.errors import DataError

DIRECTIONS = ("right", "up right", "up", "up left", "left", "down left", "down", "down right")
_RADIUS = 2.0  # pixels
_LEAST = {"samples": 1, "val_samples": 1, "time_steps": 2, "size": 6}


def events(
    samples: int = 1024,
    val_samples: int = 256,
    time_steps: int = 10,
    size: int = 12,
    noise: float = 0.01,
    seed: int = 0,
    step_size: int | None = None,
    output_size: int | None = None,
) -> DataChoice:
    """Make events.

    Args:
        samples: Samples for training, at least 1.
        val_samples: Samples for validation, at least 1.
        time_steps: Time steps of a sample, at least 2.
        size: Height and width in pixels, at least 6.
        noise: Probability that a pixel sends an event for no reason, from 0 to below 1.
        seed: Seed of everything.
        step_size: Number of values of a time step, to check: 2 x size x size.
        output_size: Number of classes, to check: 8.

    Returns:
        Events (time, 2, height, width), each 0 or 1, and the direction; the cross-entropy loss with the accuracy, and
        as baseline the loss of a uniform prediction.

    Raises:
        DataError: A setting is out of range.
    """
    given = {"samples": samples, "val_samples": val_samples, "time_steps": time_steps, "size": size}
    for name, least in _LEAST.items():
        if not isinstance(given[name], int) or isinstance(given[name], bool) or given[name] < least:
            raise DataError(f"{name} must be a whole number of at least {least}, not {given[name]!r}.")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < 1:
        raise DataError(f"noise must be from 0 to below 1, not {noise!r}.")
    check_size("step_size", step_size, 2 * size * size)
    check_size("output_size", output_size, len(DIRECTIONS))
    generator = torch.Generator().manual_seed(seed)
    facts: dict[str, Any] = {"label_names": list(DIRECTIONS), "generator": {**given, "noise": noise, "seed": seed}}
    train, val = (_make(count, time_steps, size, noise, generator) for count in (samples, val_samples))
    return DataChoice(
        TableRows(*train, facts),
        TableRows(*val, facts),
        loss=classification_loss,
        baselines={"all directions alike": math.log(len(DIRECTIONS))},
        settings={"step_size": 2 * size * size, "output_size": len(DIRECTIONS)},
    )


def _make(count: int, time: int, size: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return events (count, time, 2, size, size) and directions (count)."""
    directions = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    angle = directions * (2 * math.pi / len(DIRECTIONS))
    start = torch.rand(count, 2, generator=generator) * size
    step = torch.stack((-angle.sin(), angle.cos()), 1)  # rows grow downwards
    centre = start[:, None] + torch.arange(time + 1)[None, :, None] * step[:, None]  # (count, time + 1, 2)
    places = torch.arange(size)
    away = (places - centre[..., None] + size / 2).remainder(size) - size / 2  # it leaves at one edge and comes back
    bright = away[:, :, 0, :, None].square() + away[:, :, 1, None, :].square() < _RADIUS**2
    before, after = bright[:, :-1], bright[:, 1:]
    sent = torch.stack((after & ~before, before & ~after), 2)
    sent |= torch.rand(sent.shape, generator=generator) < noise
    return sent.float(), directions
