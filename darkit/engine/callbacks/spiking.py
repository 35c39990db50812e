"""The receipt of a spiking model: firing rates, silent neurons, synaptic operations, energy and rasters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import LightningModule, Trainer

from darkit.engine.callbacks.base import StepCallback, check_interval, is_due
from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.config import TrainerConfig
from darkit.engine.data.samples import count_samples
from darkit.engine.device import kept_generators, move_to_device
from darkit.engine.metrics.gathering import fresh_metrics
from darkit.engine.metrics.undisturbed import evaluating
from darkit.engine.spiking.neurons import find_neurons
from darkit.engine.spiking.receipt import EnergyCosts, Output, Receipt, measure
from darkit.engine.steps.adapter import Adapter, bare_module
from darkit.engine.steps.averages import evaluated_weights
from darkit.engine.steps.sharding import is_sharded


class SpikingReceipt(StepCallback):
    """Add to a step's outputs what the spikes of a model with spiking neurons cost and save, as numbers and media.

    Measured is the first batch of every evaluation, while that computes it. Without a `StepEvaluate`, the training
    batch of a step is computed once more, in evaluation mode and without effect on the training. In Lightning's own
    loop, which a `darkit.RunRecorder` records, it is the first batch of every validation, and nothing without any.
    Models without spiking neurons or in parts are not measured. Of several processes the first one measures its own
    batch.

    Args:
        every: Steps between receipts without a `StepEvaluate`; 0 measures the last step only.
        samples: The samples of the batch whose spikes are drawn.
        mac_energy: Picojoules of a multiplication with an addition.
        ac_energy: Picojoules of an addition alone.
    """

    def __init__(
        self, every: int = 100, samples: Iterable[int] = (0,), *, mac_energy: float = 4.6, ac_energy: float = 0.9
    ) -> None:
        self.every = check_interval("every", every, 0)
        self.samples = [check_interval("samples", sample, 0) for sample in samples]
        usual = EnergyCosts()
        changed = (mac_energy, ac_energy) != (usual.multiplied, usual.accumulated)
        self.costs = EnergyCosts(mac_energy, ac_energy, "Set by mac_energy and ac_energy.") if changed else usual
        self._receipt: Receipt | None = None
        self._module: torch.nn.Module | None = None
        self._evaluation: StepEvaluate | None = None
        self._batch: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        module = bare_module(pl_module)
        if not trainer.is_global_zero or is_sharded(trainer) or not find_neurons(module):
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self.follow(module, next((one for one in callbacks if isinstance(one, StepEvaluate)), None))

    def follow(self, module: torch.nn.Module, evaluation: StepEvaluate | None) -> None:
        """Measure a model, in the first batch of every evaluation if there are any."""
        self._module, self._evaluation = module, evaluation
        if evaluation is not None:
            evaluation.observer = self.observe

    def take(self) -> dict[str, Any]:
        """Return the columns and media of the last measurement, once."""
        receipt, self._receipt = self._receipt, None
        return {} if receipt is None else {**receipt.values(self.costs), **receipt.media(self.costs)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._batch = None

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        if self._module is None:
            return
        if self._evaluation is None and isinstance(pl_module, Adapter) and is_due(trainer, step, self.every):
            self._measure_again(trainer, pl_module)
        outputs.update({key: value for key, value in self.take().items() if key not in outputs})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluation is not None:
            self._evaluation.observer = None
        self._module = self._evaluation = self._receipt = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def observe(self, compute: Callable[[], Output], batch: Any) -> Output:
        """Return what computes a batch of an evaluation, and measure it."""
        if self._module is None:
            return compute()
        values, self._receipt = measure(self._module, compute, self.samples, count_samples(batch))
        return values

    def _measure_again(self, trainer: Trainer, adapter: Adapter) -> None:
        """Measure the last training batch."""
        module, step = adapter.module, adapter.compute.evaluation
        media = step.take_media()
        batch = move_to_device(trainer.precision_plugin.convert_input(self._batch), adapter.device)
        with (
            kept_generators(),
            evaluated_weights(trainer),
            evaluating(module),
            fresh_metrics(module),
            torch.no_grad(),
            trainer.precision_plugin.val_step_context(),
        ):
            _, self._receipt = measure(module, lambda: step(batch, 0), self.samples, count_samples(batch))
        step.take_media()
        step.media.update(media)


def receipt_of(config: TrainerConfig, every: int = 0) -> SpikingReceipt:
    """Return what measures a spiking model as the settings say."""
    samples = range(config.raster_samples)
    return SpikingReceipt(every, samples, mac_energy=config.mac_energy, ac_energy=config.ac_energy)
