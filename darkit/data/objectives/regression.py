"""A regression for a small network: noisy outputs of a random two-layer network (``data=regression``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from darkit.data.objectives.labels import regression_loss
from darkit.data.sources.choice import DataChoice
from darkit.errors import DataError


def regression(
    input_size: int = 12,
    output_size: int = 12,
    samples: int = 4096,
    val_samples: int = 512,
    noise: float = 0.05,
    seed: int = 0,
) -> DataChoice:
    """Generate the data.

    Args:
        input_size: Size of an input.
        output_size: Size of a target.
        samples: Number of training samples.
        val_samples: Number of validation samples.
        noise: Standard deviation of the noise; the targets have about 1.
        seed: Seed of the network, the inputs and the noise.

    Returns:
        Pairs of inputs (input_size) and targets (output_size), with the mean squared error as loss and the error of
        predicting the mean as baseline.

    Raises:
        DataError: A size is below 1, or the noise below 0.
    """
    sizes = {"input_size": input_size, "output_size": output_size, "samples": samples, "val_samples": val_samples}
    for name, size in sizes.items():
        if size < 1:
            raise DataError(f"{name} must be at least 1, not {size}.")
    if noise < 0:
        raise DataError(f"noise must be at least 0, not {noise}.")
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(input_size, 2 * input_size, generator=generator) / input_size**0.5
    outer = torch.randn(2 * input_size, output_size, generator=generator) / input_size**0.5
    inputs = torch.randn(samples + val_samples, input_size, generator=generator)
    targets = torch.relu(inputs @ hidden) @ outer
    targets = targets + noise * torch.randn(targets.shape, generator=generator)
    train, val = (inputs[:samples], targets[:samples]), (inputs[samples:], targets[samples:])
    mean = train[1].mean(0).expand_as(val[1])
    return DataChoice(train, val, loss=regression_loss, baselines={"always the mean": F.mse_loss(mean, val[1]).item()})
