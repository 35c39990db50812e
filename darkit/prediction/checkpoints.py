"""Checkpoints of a run evaluated as its training evaluates: the same batches, weights, precision and generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Trainer

from darkit.data.sources.choice import DataChoice
from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.callbacks.spiking import receipt_of
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.state import of_rank
from darkit.engine.checkpoints.weights import load_weights
from darkit.engine.config import TrainerConfig
from darkit.engine.data.fits import check_fits
from darkit.engine.data.loaders import make_loaders
from darkit.engine.data.validation import ValidationBatches
from darkit.engine.device import kept_generators, resolve_device, restore_generators
from darkit.engine.loop import quiet_lightning
from darkit.engine.spiking.neurons import find_neurons
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.loss import finds_own_loss, make_step
from darkit.prediction.evaluation import compare_labels, compare_tokenizers
from darkit.prediction.rebuild import build_model
from darkit.prediction.tasks import label_names
from darkit.runs import Run
from darkit.runs.checkpoints import Checkpoint

_SETTINGS = (
    *("batch_size", "eval_iters", "precision", "seed", "num_workers", "deterministic", "device"),
    *("raster_samples", "mac_energy", "ac_energy"),
)


class CheckpointEvaluator:
    """Evaluate checkpoints of a run one after the other; model and data are made once.

    Args:
        run: The run.
        choice: The data, of which the validation part is used if it has one.
        loss: The loss, if neither the model nor the choice has one.
        device: The device; None takes that of the training if available.
        batch_size: Samples per batch; None takes that of the training.

    Attributes:
        config: The settings of the evaluation.

    Raises:
        ConfigError: A recorded setting is not valid.
        DataError: The data does not fit the run, has another tokenizer or other labels, or is empty.
        LossError: No loss was found.
    """

    def __init__(
        self,
        run: Run,
        choice: DataChoice,
        *,
        loss: Callable[..., Any] | None = None,
        device: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        recorded = run.trainer_config
        settings = {name: recorded[name] for name in _SETTINGS if name in recorded}
        given = {"device": device, "batch_size": batch_size}
        self.config = TrainerConfig(**settings | {name: value for name, value in given.items() if value is not None})
        resolve_device(self.config)
        self.signs = 0  # counted by the batches
        self._run = run
        self._model = model = build_model(run)
        samples = choice.train if choice.val is None else choice.val
        compare_tokenizers(run, choice.tokenizer)
        compare_labels(label_names(run, model), getattr(samples, "facts", {}).get("label_names"))
        function = loss or (None if finds_own_loss(model) else choice.loss_for(model))
        step = make_step(model, function)
        self._loaders = make_loaders(samples, samples, self.config)
        try:
            direct = function is None and not finds_own_loss(model)
            check_fits(model, run.model_config, self._loaders, direct=direct)
            with quiet_lightning():
                self._trainer = Trainer(
                    accelerator=self.config.device,
                    devices=1,
                    precision=self.config.precision,  # type: ignore[arg-type]
                    deterministic=self.config.deterministic or None,
                    logger=False,
                    enable_checkpointing=False,
                    enable_progress_bar=False,
                    enable_model_summary=False,
                )
            adapter = Adapter(model, step, self.config, feed=self._loaders.train).to(self.config.device)
            self._trainer.precision_plugin.convert_module(adapter)  # in place
            self._adapter = adapter
            batches = ValidationBatches(self._loaders.val, self)
            self._evaluate = StepEvaluate(batches, 0, self.config.eval_iters, step.evaluation)
            self._receipt = receipt_of(self.config)
            if find_neurons(model):
                self._receipt.follow(model, self._evaluate)
        except BaseException:
            self._loaders.close()
            raise

    def evaluate(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Evaluate a checkpoint.

        Returns:
            ``val_loss`` and the other columns that an evaluation in the training logs; of a spiking model also the
            columns, tables and rasters of its receipt.

        Raises:
            CheckpointNotFoundError: It was deleted in the meantime.
            CheckpointCorruptError: It is damaged.
            CheckpointMismatchError: Its weights are those of another model.
        """
        _, content = read_run_checkpoint(self._run.path, checkpoint.step)
        load_weights(self._model, content)
        states = of_rank(content, 0, self.config.seed).get("rng")
        with kept_generators(), quiet_lightning():
            if states:
                restore_generators(states)
            values = self._evaluate.evaluate(self._trainer, self._adapter)
            return self._receipt.take() | values

    def close(self) -> None:
        """Release the data and end its worker processes."""
        self._loaders.close()
