"""The best checkpoint of a run, whose weights can be loaded at the end."""

from __future__ import annotations

from torch import nn

from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.weights import load_weights
from darkit.engine.config import TrainerConfig
from darkit.errors import CheckpointCorruptError, ConfigError
from darkit.runs import Run, files
from darkit.runs.checkpoints import list_checkpoints, tell_skipped
from darkit.runs.retention import Retention


def refuse_without_validation(config: TrainerConfig, *, validates: bool) -> None:
    """Refuse settings that need a validation metric in a training without validation. Raises `ConfigError`.

    ``validates`` says whether there is validation data, or a callback that may add such a metric.
    """
    asked = [name for name in ("keep_best", "early_stop_patience", "load_best_at_end") if getattr(config, name)]
    if asked and not validates and config.monitor.startswith("val_"):
        raise ConfigError(
            f"{asked[0]}={getattr(config, asked[0])} needs monitor={config.monitor!r}, but there is no validation "
            "data. Give val_data=, or monitor a metric of the training such as 'train_loss'."
        )


def load_best(run: Run, model: nn.Module, config: TrainerConfig, *, writes: bool) -> str:
    """Load the weights of a run's best checkpoint once all are written; return a message for the user.

    A process that ``writes`` the run's files records the checkpoint in ``run.json``.
    """
    ranked = Retention(monitor=config.monitor, mode=config.best_mode).ranked(list_checkpoints(run.path))
    for checkpoint in ranked:
        try:
            content = read_checkpoint(checkpoint)
        except CheckpointCorruptError as error:
            tell_skipped(checkpoint, str(error))
            continue
        load_weights(model, content)
        value = checkpoint.metrics[config.monitor]
        if writes:
            best = {"checkpoint": checkpoint.name, "step": checkpoint.step, "monitor": config.monitor, "value": value}
            files.write_json(run.path / files.RUN, run.info | {"best": best})
        return f"The model has the weights of step {checkpoint.step}, the best by {config.monitor} ({value:.6g})."
    return f"No checkpoint of {run.name!r} has {config.monitor!r}: the model has the weights of the last step."
