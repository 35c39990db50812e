"""The loss of a batch, for models and batches of any form.

The first of these that applies is used:

1. ``loss=``, called with outputs and target, or with model and batch (its first parameter is then called ``model``).
2. A method of the model: ``training_step(batch)``, ``loss(batch)``, or ``loss(outputs, target)`` with two parameters.
   A ``training_step(batch, batch_idx)``, as in a LightningModule, gets the index of the batch in its epoch, and values
   that a LightningModule passes to ``self.log`` are logged.
3. The model's output for the whole batch: ``out.loss``, ``out["loss"]``, ``(logits, loss)`` or a scalar.

In an evaluation a ``validation_step(batch)`` of the model comes before all of these; it may return its loss, or numbers
by name.

A scalar is a tensor without dimensions. An explicit loss (``loss=``, a method, ``out.loss``, ``out["loss"]``) may have
any shape with one element; a prediction that happens to have one element is not a loss.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from darkit.engine.data.samples import describe
from darkit.engine.data.workers import is_worker_death
from darkit.engine.log.media import is_media
from darkit.engine.log.values import number_of
from darkit.engine.metrics.denominators import ObservedLoss, observed_loss
from darkit.engine.metrics.gathering import Metrics, computed, is_metric, refuse_without_outputs, takes_model
from darkit.engine.spiking.states import NeuronStates
from darkit.engine.steps.methods import TARGETS, method_of, own_method, positional, takes_target
from darkit.errors import BatchError, DarkitError, LossError, OutOfMemoryError
from darkit.runs.log import DEFAULT_COLUMNS

logger = logging.getLogger(__name__)
Compute = Callable[[Any, int], Any]
_ADVICE = (
    "give loss= (a callable of outputs and target, or of model and batch), or add a training_step(batch) or "
    "loss(batch) method to the model, or let it return out.loss, out['loss'], (logits, loss) or a scalar"
)
_LOSSES = ("loss", "train_loss", "val_loss")  # logged by darkit itself, under different names in an evaluation
_NO_MEMORY = (  # of the CPU (POSIX, Windows), MPS, CUDA's libraries
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
)
_GIVEN_ALL = re.compile(r"\.forward\(\) takes (?:from \d+ to )?\d+ positional arguments? but \d+ were given")
_MISFITS = (RuntimeError, TypeError, ValueError, IndexError, KeyError)


class Step:
    """Compute ``{"loss": scalar tensor, ...}`` of a batch; further entries are the step's other numbers.

    Args:
        compute: Returns the output of the model or the loss for a batch and its index.
        meant: Whether that output is explicitly a loss, so that one element of any shape is accepted.
        evaluates: Whether it is for evaluations only, which may have numbers without a loss.

        states: The hidden state of the model's neurons; None if it has none.

    Attributes:
        evaluation: The step for evaluations, which may be this one.
        media: The first medium of each name since `take_media`.
        observed: The loss in it, if the call of the loss is enough to observe the denominators of all values.
        states: As given.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        meant: bool,
        evaluates: bool = False,
        observed: ObservedLoss | None = None,
        states: NeuronStates | None = None,
    ) -> None:
        self.evaluation: Step = self
        self.observed = observed
        self.states = states
        self.media: dict[str, Any] = {}
        self._compute = compute
        self._meant = meant
        self._evaluates = evaluates
        self._warned: set[str] = set()
        self._within: Callable[..., Any] | None = None

    def within(self, call: Callable[..., Any]) -> None:
        """Have everything computed through a callable, which gets a function and its arguments."""
        self._within = self.evaluation._within = call

    def __call__(self, batch: Any, index: int = 0) -> dict[str, Any]:
        """Compute one batch.

        Args:
            batch: The batch.
            index: Its index in the epoch, or in the evaluation.

        Raises:
            BatchError: The model failed on it.
            LossError: The output has no loss.
            LogError: A value cannot be logged.
        """
        return (
            self._compute_values(batch, index)
            if self._within is None
            else self._within(self._compute_values, batch, index)
        )

    def _compute_values(self, batch: Any, index: int) -> dict[str, Any]:
        if self.states is not None:
            self.states.begin()
        try:
            output = self._compute(batch, index)
        except torch.OutOfMemoryError:
            raise
        except (*_MISFITS, MemoryError, StopIteration) as error:
            # torch reports the death of a worker in whatever code is running
            if isinstance(error, LossError | BatchError) or is_worker_death(error):
                raise
            raise misfit(error, f"a batch of {describe(batch)}") from error
        if self._evaluates and (output is None or (isinstance(output, Mapping) and "loss" not in output)):
            values = {"loss" if key == "val_loss" else key: value for key, value in (output or {}).items()}
            return _values(values, self._warn, self.media)
        return scalars(output, meant=self._meant, warn=self._warn, media=self.media)

    def take_media(self) -> dict[str, Any]:
        """Return the media of the batches since the last call, which are no part of a mean."""
        media, self.media = self.media, {}
        return media

    def _warn(self, name: str, problem: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("%r of the step is not logged: %s.", name, problem)


def make_step(
    model: nn.Module,
    loss: Callable[..., Any] | None = None,
    metrics: Metrics | None = None,
    *,
    reset_state: bool = True,
) -> Step:
    """Return how this model computes a loss.

    Args:
        model: The user's module.
        loss: The user's loss, or None.
        metrics: Further values of outputs and target, or None.
        reset_state: Whether the hidden state of neurons is reset before every batch; see
            `darkit.engine.spiking.states`.

    Raises:
        LossError: ``loss`` is not callable, or metrics need outputs that the step does not return.
    """
    metrics = metrics or Metrics(None)
    meant, observed = True, None
    if loss is None:
        name, own = own_method(model)
        if own is None:
            meant = False
            compute: Compute = lambda batch, _: _call_whole(model, batch, metrics)  # noqa: E731
        elif name == "loss" and takes_target(own):
            compute = lambda batch, _: _loss_of_target(model, own, batch, metrics)  # noqa: E731
        else:
            refuse_without_outputs(metrics, f"the {name} of {type(model).__name__}")
            compute = _with_metrics(model, _with_log(model, own), metrics)
    elif not callable(loss):
        raise LossError(f"loss must be a callable of outputs and target, or of model and batch, not {loss!r}.")
    elif takes_model(loss):
        refuse_without_outputs(metrics, "a loss of model and batch")
        compute = _with_metrics(model, lambda batch, _: loss(model, batch), metrics)
    else:
        observed = None if metrics else observed_loss(loss)
        called = observed or loss
        compute = lambda batch, _: _loss_of_target(model, called, batch, metrics)  # noqa: E731
    states = NeuronStates(model, reset_state) or None
    step = Step(compute, meant=meant, observed=observed, states=states)
    validates = method_of(model, "validation_step")
    if validates is not None:
        refuse_without_outputs(metrics, f"the validation_step of {type(model).__name__}")
        with_log = _with_metrics(model, _with_log(model, validates), metrics)
        step.evaluation = Step(with_log, meant=True, evaluates=True, states=states)
    return step


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out on a device or on the host, where torch raises a bare ``RuntimeError``."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def misfit(error: BaseException, what: str) -> BatchError | OutOfMemoryError:
    """Return an error that describes in one sentence how a model failed, and whether memory ran out."""
    described = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return OutOfMemoryError(f"Out of memory on {what}: use smaller batches or a smaller model. {described}")
    hint = ". Give loss=, such as torch.nn.functional.cross_entropy, if the last part of the batch is its target"
    return BatchError(f"The model failed on {what}: {described}{hint if _GIVEN_ALL.search(described) else ''}")


@contextmanager
def batch_errors(batch: Any) -> Iterator[None]:
    """Turn an error of a model in the block into one sentence about the batch, as `misfit` does."""
    try:
        yield
    except DarkitError:
        raise
    except _MISFITS as error:
        raise misfit(error, describe(batch)) from error


def call_model(model: nn.Module, batch: Any) -> Any:
    """Call the model with a whole batch: ``model(*batch)``, ``model(**batch)`` or ``model(batch)``."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def finds_own_loss(model: nn.Module) -> bool:
    """Return whether the model has a ``training_step(batch)`` or ``loss(batch)`` method."""
    return own_method(model)[1] is not None


def _with_log(model: nn.Module, method: Callable[..., Any]) -> Compute:
    """Call a method with a batch and, if it has two parameters, the batch's index.

    Values that a LightningModule passes to ``self.log`` and ``self.log_dict`` are collected.
    """
    import lightning

    takes_two = len(positional(method)) == 2
    if not isinstance(model, lightning.LightningModule):
        return (lambda batch, index: method(batch, index)) if takes_two else (lambda batch, _: method(batch))
    logged: dict[str, Any] = {}

    def log(name: str, value: Any, *arguments: Any, **settings: Any) -> None:
        logged[name] = value

    def log_dict(dictionary: Mapping[str, Any], *arguments: Any, **settings: Any) -> None:
        logged.update(dictionary)

    def compute(batch: Any, index: int) -> dict[str, Any] | None:
        logged.clear()
        model.__dict__.update(log=log, log_dict=log_dict)
        try:
            output = method(batch, index) if takes_two else method(batch)
        finally:
            del model.__dict__["log"], model.__dict__["log_dict"]
        if output is None and not torch.is_grad_enabled():
            return dict(logged)
        values = {key: value for key, value in logged.items() if key not in _LOSSES}
        return values | (dict(output) if isinstance(output, Mapping) else {"loss": _find(output, True)})

    return compute


def _with_metrics(model: nn.Module, compute: Compute, metrics: Metrics) -> Compute:
    """Add metrics of model and batch to a step's output."""
    if not metrics:
        return compute
    return lambda batch, index: _joined(compute(batch, index), metrics.compute(model, batch, None, None))


def _joined(output: Any, found: dict[str, Any]) -> dict[str, Any]:
    return {**(output if isinstance(output, Mapping) else {"loss": _find(output, True)}), **found}


def _call_whole(model: nn.Module, batch: Any, metrics: Metrics) -> Any:
    output = call_model(model, batch)
    if not metrics:
        return output
    target = list(batch.values() if isinstance(batch, Mapping) else batch)[-1] if _has_parts(batch) else None
    if isinstance(batch, Mapping):
        target = next((batch[name] for name in TARGETS if name in batch), target)
    return {"loss": _find(output, False), **metrics.compute(model, batch, _prediction(output), target)}


def _prediction(output: Any) -> Any:
    """Return a model's prediction beside its loss: ``logits``, or else the first part of its output."""
    if isinstance(output, Mapping):
        return output.get("logits", next((value for key, value in output.items() if key != "loss"), None))
    if hasattr(output, "logits"):
        return output.logits
    return output[0] if isinstance(output, tuple | list) and len(output) > 1 else None


def _has_parts(batch: Any) -> bool:
    return isinstance(batch, Mapping | tuple | list) and len(batch) > 1


def _loss_of_target(model: nn.Module, loss: Callable[..., Any], batch: Any, metrics: Metrics) -> Any:
    if not _has_parts(batch):
        raise LossError(
            "A loss of outputs and target needs batches whose last element is the target, but this one is "
            f"{describe(batch)}; write the loss as loss(model, batch) instead."
        )
    if isinstance(batch, Mapping):
        *names, last = batch
        outputs, target = model(**{name: batch[name] for name in names}), batch[last]
    else:
        outputs, target = model(*batch[:-1]), batch[-1]
    found = loss(outputs, target)
    return _joined(found, metrics.compute(model, batch, outputs, target)) if metrics else found


def scalars(
    output: Any,
    *,
    meant: bool = True,
    warn: Callable[[str, str], None] | None = None,
    media: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the loss and, of a dict, the other numbers in a step's output.

    Args:
        output: The output.
        meant: Whether it is explicitly a loss, so that one element of any shape is accepted.
        warn: Called with a name and the reason when a value is not logged; or None.
        media: Gets the media among the values, unless it has one of their name; or None.

    Returns:
        ``{"loss": tensor without dimensions, ...}``.

    Raises:
        LossError: The loss is missing, not a scalar, or has no gradient while gradients are enabled.
        LogError: A number is complex or too large.
    """
    loss = _find(output, meant)
    values: dict[str, Any] = {"loss": loss}
    if isinstance(output, Mapping):
        others = {key: value for key, value in output.items() if key != "loss"}
        values |= _values(others, warn if meant else None, media)
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise LossError(f"The loss carries no gradient (was it detached, or is every weight frozen?); else {_ADVICE}.")
    return values


def _values(
    output: Mapping[str, Any], warn: Callable[[str, str], None] | None, media: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the numbers of a dict; torchmetrics objects become numbers in training and stay in an evaluation."""
    values: dict[str, Any] = {}
    for name, value in output.items():
        key = str(name)
        if is_metric(value):
            values |= computed(key, value) if torch.is_grad_enabled() else {key: value}
            continue
        number = number_of(key, value)
        if number is None:
            if isinstance(value, Tensor | numpy.ndarray):
                if warn is not None:
                    warn(key, f"it has the shape {tuple(value.shape)}, but a column holds one number")
            elif media is not None and is_media(value):
                media.setdefault(key, value)
        elif key in DEFAULT_COLUMNS:
            if warn is not None:
                warn(key, "darkit fills the column of this name itself; return it under another name")
        else:
            values[key] = number.detach().clone() if isinstance(number, Tensor) else number
    return values


def _find(output: Any, meant: bool) -> Tensor:
    found = getattr(output, "loss", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("loss")
    meant = meant or found is not None
    if found is None and isinstance(output, Sequence) and not isinstance(output, str) and len(output) > 1:
        found = output[-1]
    if found is None:
        found = output
    if not isinstance(found, Tensor):
        raise LossError(f"No loss in what the model returned ({describe(output)}): {_ADVICE}.")
    if found.numel() != 1 or (found.ndim and not meant):
        raise LossError(f"The loss must be a scalar, but its shape is {tuple(found.shape)}: {_ADVICE}.")
    return found.reshape(()) if found.ndim else found
