"""Your data: here a sine of a sum, which the model learns."""

import torch

from darkit.data import DataChoice


def make_data(input_size: int = 8, samples: int = 2000, seed: int = 0) -> DataChoice:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, input_size, generator=generator)
    targets = inputs.sum(1).div(input_size**0.5).sin()
    held_out = samples // 10
    return DataChoice(
        train=(inputs[held_out:], targets[held_out:]),
        val=(inputs[:held_out], targets[:held_out]),
        baselines={"always zero": targets[:held_out].square().mean().item()},
    )
