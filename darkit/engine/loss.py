"""How a batch becomes a loss, whatever the model and the batch look like.

The first of these that applies is taken:

1. ``loss=``, called with outputs and target, or with model and batch (its first parameter is then called ``model``).
2. A method ``training_step(batch)`` or ``loss(batch)`` of the model. A ``training_step(batch, batch_idx)``, as a
   LightningModule has it, gets the number of calls before, and what a LightningModule says with ``self.log`` is logged.
3. What the model returns for the whole batch: ``out.loss``, ``out["loss"]``, ``(logits, loss)`` or a scalar.

A scalar is a tensor without dimensions. Where a loss is plainly meant (``loss=``, a method, ``out.loss``,
``out["loss"]``) one element will do, whatever its dimensions; a prediction that happens to have one is no loss.
"""

from __future__ import annotations

import inspect
import itertools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from darkit.errors import BatchError, LossError, OutOfMemoryError

if TYPE_CHECKING:
    import lightning

Step = Callable[[Any], dict[str, Any]]
_ADVICE = (
    "give loss= (a callable of outputs and target, or of model and batch), or add a training_step(batch) or "
    "loss(batch) method to the model, or let it return out.loss, out['loss'], (logits, loss) or a scalar"
)
_LOSSES = ("loss", "train_loss", "val_loss")  # what darkit logs itself, and tells apart when it evaluates
_NO_MEMORY = (  # of the CPU (POSIX, Windows), MPS, CUDA's libraries
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
)
_MISFITS = (RuntimeError, TypeError, ValueError, IndexError, KeyError)


def make_step(model: nn.Module, loss: Callable[..., Any] | None = None) -> Step:
    """Finds out how this model gets a loss.

    Args:
        model: The user's module.
        loss: The user's loss, or None.

    Returns:
        A function of a batch that returns ``{"loss": scalar tensor, ...}``, the further entries being the scalars of
        the dict that the step returned.

    Raises:
        LossError: ``loss`` cannot be called.
    """
    meant = True
    if loss is None:
        own = _own_method(model)
        meant = own is not None
        compute = own or (lambda batch: call_model(model, batch))
    elif not callable(loss):
        raise LossError(f"loss must be a callable of outputs and target, or of model and batch, not {loss!r}.")
    elif _takes_model(loss):
        compute = lambda batch: loss(model, batch)  # noqa: E731 - three ways to the same kind of value, side by side
    else:
        compute = lambda batch: _loss_of_target(model, loss, batch)  # noqa: E731

    def step(batch: Any) -> dict[str, Any]:
        try:
            output = compute(batch)
        except torch.OutOfMemoryError:
            raise
        except (*_MISFITS, MemoryError, StopIteration) as error:
            if isinstance(error, LossError):
                raise
            raise misfit(error, f"a batch of {describe(batch)}") from error
        return scalars(output, meant=meant)

    return step


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether memory ran out, on a device or on the host, where torch raises a bare ``RuntimeError``."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def misfit(error: BaseException, what: str) -> BatchError | OutOfMemoryError:
    """Returns the error that says in one sentence how a model failed on something, and whether memory ran out."""
    described = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return OutOfMemoryError(f"Out of memory on {what}: use smaller batches or a smaller model. {described}")
    return BatchError(f"The model failed on {what}: {described}")


def call_model(model: nn.Module, batch: Any) -> Any:
    """Calls the model with a whole batch: ``model(*batch)``, ``model(**batch)`` or ``model(batch)``."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def describe(batch: Any) -> str:
    """Says of what shapes and dtypes a batch is, such as ``(float32[4, 12], int64[4])``."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')}{list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{_on_one_line(key)}: {describe(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, tuple | list) and len(batch) <= 16:
        return "(" + ", ".join(describe(value) for value in batch) + ")"
    return type(batch).__name__


def _on_one_line(key: Any) -> str:
    return text if (text := str(key)).isprintable() else repr(text)


def finds_own_loss(model: nn.Module) -> bool:
    """Says whether the model has a ``training_step(batch)`` or ``loss(batch)`` method of its own."""
    return _own_method(model) is not None


def _own_method(model: nn.Module) -> Callable[[Any], Any] | None:
    import lightning  # slow to load, and a prediction needs no loss

    for name in ("training_step", "loss"):
        function = getattr(type(model), name, None)
        if inspect.isfunction(function) and function is not getattr(lightning.LightningModule, name, None):
            method: Callable[..., Any] = getattr(model, name)
            if name == "training_step" and _takes_two(method):
                method = _with_index(method)
            return _with_log(model, method) if isinstance(model, lightning.LightningModule) else method
    return None


def _with_log(model: lightning.LightningModule, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Takes what a LightningModule says with ``self.log`` and ``self.log_dict``: its trainer is darkit."""
    logged: dict[str, Any] = {}

    def log(name: str, value: Any, *arguments: Any, **settings: Any) -> None:
        logged[name] = value.compute() if callable(getattr(value, "compute", None)) else value

    def log_dict(dictionary: Mapping[str, Any], *arguments: Any, **settings: Any) -> None:
        for name, value in dictionary.items():
            log(name, value)

    def compute(batch: Any) -> dict[str, Any]:
        logged.clear()
        model.__dict__.update(log=log, log_dict=log_dict)
        try:
            output = method(batch)
        finally:
            del model.__dict__["log"], model.__dict__["log_dict"]
        values = {key: value for key, value in logged.items() if key not in _LOSSES}
        return values | scalars(output)

    return compute


def _with_index(method: Callable[..., Any]) -> Callable[[Any], Any]:
    calls = itertools.count()
    return lambda batch: method(batch, next(calls))


def _takes_two(method: Callable[..., Any]) -> bool:
    needed = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed) == 2


def _takes_model(loss: Callable[..., Any]) -> bool:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return first is not None and first.name == "model"


def _loss_of_target(model: nn.Module, loss: Callable[..., Any], batch: Any) -> Any:
    if isinstance(batch, Mapping) and len(batch) > 1:
        *names, last = batch
        outputs = model(**{name: batch[name] for name in names})
        return loss(outputs, batch[last])
    if isinstance(batch, tuple | list) and len(batch) > 1:
        return loss(model(*batch[:-1]), batch[-1])
    raise LossError(
        "A loss of outputs and target needs batches whose last element is the target, but this one is "
        f"{describe(batch)}; write the loss as loss(model, batch) instead."
    )


def scalars(output: Any, *, meant: bool = True) -> dict[str, Any]:
    """Takes the loss, and from a dict its other scalars, out of what a step returned.

    Args:
        output: What it returned.
        meant: Whether the output itself is meant to be a loss, so that one element of any shape will do.

    Returns:
        ``{"loss": tensor without dimensions, ...}``.

    Raises:
        LossError: There is no loss, it is not a scalar, or gradients are on and it carries none.
    """
    loss = _find(output, meant)
    values: dict[str, Any] = {"loss": loss}
    if isinstance(output, Mapping):
        for key, value in output.items():
            scalar = isinstance(value, Tensor) and value.numel() == 1
            if key != "loss" and (scalar or isinstance(value, numbers.Real)):
                values[str(key)] = value.detach().reshape(()).clone() if isinstance(value, Tensor) else value
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise LossError(f"The loss carries no gradient (was it detached, or is every weight frozen?); else {_ADVICE}.")
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
