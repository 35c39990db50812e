"""Evaluation of a run's model on other data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from darkit.data.collate import IGNORED
from darkit.data.objectives.next_sentence import SentencePairs
from darkit.data.sources.choice import DataChoice
from darkit.engine.callbacks.evaluate import evaluate
from darkit.engine.config import TrainerConfig
from darkit.engine.data.fits import check_fits
from darkit.engine.data.loaders import make_loaders
from darkit.engine.description.exports import tokenizer_digest
from darkit.engine.device import move_to_device, seed_generators
from darkit.engine.steps.loss import Compute, finds_own_loss, make_step
from darkit.errors import DataError
from darkit.prediction.predicter import Predicter
from darkit.prediction.tasks import label_names
from darkit.runs import Run, files, load
from darkit.runs.names import split_reference
from darkit.runs.notes import Evaluation, add_evaluation
from darkit.runs.tasks import CAUSAL, CLASSIFICATION, MASKED, SEQ2SEQ

_PERPLEXITY = (CAUSAL, MASKED, SEQ2SEQ)  # tasks with a loss in nats per token


def evaluate_run(name: str, data: Any, *, note: bool = True, **settings: Any) -> dict[str, float]:
    """Evaluate a run's model on data, and appends the result to the run's notes.

    Args:
        name: The run's name, or NAME:CHECKPOINT.
        data: As for `measure_run`, with its errors.
        note: Append the result to the notes.
        **settings: As for `measure_run`.

    Returns:
        ``loss`` and the other values of a step, each the mean over its samples or targets (see
        `darkit.engine.metrics.means`), and for language models ``perplexity``, the exponential of the loss; not for
        pairs of sentences, whose loss is the sum of two.

    Raises:
        ConfigError: The run's notes cannot be read, so a new one would replace them.
        StorageError: The run's notes cannot be written.
    """
    evaluation = measure_run(name, data, **settings)
    if note:
        run, _ = split_reference(name)
        add_evaluation(load(run, root=Predicter.get_root()).path, evaluation)
    return dict(evaluation.metrics)


def measure_run(
    name: str,
    data: Any,
    *,
    described: str = "",
    device: str | None = None,
    batch_size: int = 16,
    loss: Callable[..., Any] | None = None,
) -> Evaluation:
    """Evaluate a run's model on data without writing the result.

    Args:
        name: The run's name, or NAME:CHECKPOINT.
        data: A `DataChoice`, whose validation part is used if it has one, or the ``data`` of `darkit.fit`.
        described: The name of the data in the notes.
        device: The device; None takes the accelerator if available.
        batch_size: Samples per batch.
        loss: The loss, if neither the model nor the choice has one.

    Returns:
        The metrics, the evaluated checkpoint, and the time.

    Raises:
        DataError: The data does not fit the run, has another tokenizer or other labels, or is empty.
        LossError: No loss was found.
    """
    predicter = Predicter.from_pretrained(name, device)
    run = load(predicter.name, root=predicter.get_root())
    model = predicter.model
    choice = data if isinstance(data, DataChoice) else DataChoice(data, loss=loss)
    samples = choice.train if choice.val is None else choice.val
    compare_tokenizers(run, choice.tokenizer)
    compare_labels(label_names(run, model), getattr(samples, "facts", {}).get("label_names"))
    function = loss or (None if finds_own_loss(model) else choice.loss_for(model))
    config = TrainerConfig(batch_size=batch_size, device=predicter.device.partition(":")[0])
    seed_generators(config.seed)  # random samples are the same each time
    loaders = make_loaders(samples, samples, config)
    try:
        check_fits(model, run.model_config, loaders, direct=function is None and not finds_own_loss(model))
        step: Compute = make_step(model, function).evaluation
        if predicter.task == CLASSIFICATION:
            step = _with_accuracy(step, model)
        batches = (move_to_device(batch, predicter.device) for batch in loaders.val)
        means = evaluate(model, batches, step, 0)
    finally:
        loaders.close()
    metrics = {key: float(value) for key, value in means.items()}
    one_loss = not isinstance(samples, SentencePairs)  # theirs is a sum of two
    if "loss" in metrics and predicter.task in _PERPLEXITY and one_loss:
        metrics["perplexity"] = math.exp(metrics["loss"]) if metrics["loss"] < 700 else math.inf
    checkpoint = predicter.checkpoint.name if predicter.checkpoint else ""
    return Evaluation(time.time(), described or type(samples).__name__, checkpoint, metrics)


def _with_accuracy(step: Compute, model: nn.Module) -> Compute:
    """Add the accuracy of a classifier that returns only its loss, as those of transformers do."""
    outputs: list[Any] = []
    model.register_forward_hook(lambda module, arguments, output: outputs.append(output))

    def compute(batch: Any, index: int) -> dict[str, Any]:
        outputs.clear()
        values: dict[str, Any] = step(batch, index)
        logits = getattr(outputs[-1], "logits", None) if outputs else None
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if isinstance(logits, Tensor) and isinstance(labels, Tensor) and logits.shape[:-1] == labels.shape:
            counted = labels != IGNORED
            return {"accuracy": (logits.argmax(-1) == labels)[counted].double().mean(), **values}
        return values

    return compute


def compare_tokenizers(run: Run, data: Any) -> None:
    """Raise `DataError` if the data has another tokenizer than the run."""
    mine, theirs = tokenizer_digest(run.path / files.TOKENIZER), tokenizer_digest(data)
    if None not in (mine, theirs) and mine != theirs:
        raise DataError(
            f"The tokenizer of this data is not the one of the run {run.name!r}. Give data with the setting "
            f"tokenizer={run.path / files.TOKENIZER}."
        )


def compare_labels(run: list[str], data: list[str] | None) -> None:
    """Raise `DataError` if the data has other labels than the run."""
    if run and data and list(run) != list(data):
        raise DataError(f"The labels of this data are {', '.join(data)}, but the model predicts {', '.join(run)}.")
