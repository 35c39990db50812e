"""The batch-size finder: the speed and the memory of a step at growing batch sizes, until one does not fit."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from darkit.engine.checkpoints.weights import bare
from darkit.engine.config import TrainerConfig
from darkit.engine.data.loaders import make_loaders
from darkit.engine.device import move_to_device
from darkit.engine.loop import quiet_lightning
from darkit.engine.metrics.operations import size_of
from darkit.engine.native_training import trains_itself
from darkit.engine.steps.loss import is_out_of_memory, make_step
from darkit.engine.steps.optim import make_optimizer
from darkit.errors import BatchError, ConfigError, OutOfMemoryError

_STALE = 2  # sizes in a row without a gain that end the search
_GAIN = 1.05


@dataclass(frozen=True)
class BatchSize:
    """What was measured of a batch size.

    Attributes:
        size: The samples of a batch.
        seconds: The seconds of a step; None of a size that does not fit.
        memory: The largest memory of the accelerator, in bytes; None on others.
    """

    size: int
    seconds: float | None
    memory: int | None = None

    @property
    def speed(self) -> float:
        """Samples per second; 0 of a size that does not fit."""
        return self.size / self.seconds if self.seconds else 0.0


def measure_sizes(
    model: nn.Module, loss: Callable[..., Any] | None, samples: Any, config: TrainerConfig, most: int, steps: int
) -> Iterator[BatchSize]:
    """Measure 1, 2, 4, ... samples per batch: forward, backward and the optimizer's update, on the config's device.

    A model that cannot be trained on one sample, such as one that normalises over the batch, begins with 2. It ends at
    ``most``, at the number of samples, with the first size that does not fit in memory, or when two sizes in
    a row are not 5 % faster than the best one before.

    Args:
        model: The model; its weights change.
        loss: The loss, or None for a model's own.
        samples: The training data.
        config: Precision, optimizer, device and workers.
        most: The largest size.
        steps: Measured steps of each size, after one that is not.

    Raises:
        ConfigError: The data has its own batch size, or the model its own optimizer.
    """
    if isinstance(samples, DataLoader):
        raise ConfigError("The data is a DataLoader, which decides its batch size itself: give its dataset.")
    if trains_itself(model):
        raise ConfigError(
            f"{type(bare(model)).__name__} is trained by Lightning's own loop, with its own optimizers: find its batch "
            "size with lightning.pytorch.tuner.Tuner."
        )
    step = make_step(model, loss)
    with quiet_lightning():
        plugin = Trainer(
            accelerator=config.device,
            devices=1,
            precision=config.precision,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).precision_plugin
    plugin.convert_module(model.to(config.device).train())
    if config.compile:
        model.compile(dynamic=False)
    optimizer = make_optimizer(model, config, None)
    best, stale, size = 0.0, 0, 1
    while size <= most and stale < _STALE:
        try:
            found, given = _measure(step, plugin, optimizer, samples, config, size, steps)
        except BatchError:
            if size > 1 or most == 1:
                raise
            size = 2
            continue
        if given < size:  # there are no more samples
            return
        yield found
        if found.seconds is None:
            return
        stale = 0 if found.speed > _GAIN * best else stale + 1
        best, size = max(best, found.speed), 2 * size


def _measure(
    step: Any, plugin: Any, optimizer: Any, samples: Any, config: TrainerConfig, size: int, steps: int
) -> tuple[BatchSize, int]:
    """Return what was measured of a size, and the samples of its first batch."""
    own = copy.copy(config)
    own.batch_size = size
    on_cuda = config.device == "cuda"
    if on_cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    loaders = make_loaders(samples, None, own)
    given, began = 0, 0.0
    try:
        for count, batch in enumerate(_repeated(loaders.train, steps + 1)):
            if not count:
                given = size_of(batch)[0]
                if given < size:
                    return BatchSize(size, None), given
            elif count == 1:
                began = _now(config.device)
            moved = move_to_device(plugin.convert_input(batch), config.device)
            optimizer.zero_grad()
            with plugin.forward_context():
                loss = step(moved)["loss"]
            loss.backward()
            optimizer.step()
        seconds = (_now(config.device) - began) / steps
    except (RuntimeError, MemoryError, OutOfMemoryError) as error:
        if not (isinstance(error, OutOfMemoryError) or is_out_of_memory(error)):
            raise
        return BatchSize(size, None), given or size
    finally:
        loaders.close()
    return BatchSize(size, seconds, torch.cuda.max_memory_allocated() if on_cuda else None), given


def _repeated(batches: Any, count: int) -> Iterator[Any]:
    """Yield so many batches with as many samples as the first one, the first ones again where there are fewer."""
    found = islice(iter(batches), count)
    first = next(found, None)
    if first is None:
        return iter(())
    size = size_of(first)[0]
    return islice(cycle(chain([first], (batch for batch in found if size_of(batch)[0] == size))), count)


def _now(device: str) -> float:
    if device != "cpu":
        getattr(torch, device).synchronize()
    return time.perf_counter()
