"""Metrics of outputs and target, and torchmetrics objects, which gather over an evaluation what no mean can tell."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darkit.errors import BatchError, ConfigError, LossError, nearest
from darkit.runs.log import DEFAULT_COLUMNS

_TAKEN = (*DEFAULT_COLUMNS, "loss", "count")
_MISFITS = (TypeError, ValueError, IndexError, KeyError, AttributeError)
_KEPT = ("_update_count", "_computed", "_forward_cache")


class Metrics:
    """Computes what was given as ``metrics=`` of a batch.

    Args:
        given: Callables by name: of outputs and target, or of model and batch if the first parameter is called
            ``model``; or torchmetrics objects. An evaluation computes these over all of its batches, a training step
            over its batch.

    Raises:
        ConfigError: It is not a mapping of names to callables, or darkit itself has a value of that name.
    """

    def __init__(self, given: Mapping[str, Any] | None) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"metrics must be a dict of callables by name, not {type(given).__name__}.")
        self._functions: dict[str, Any] = {}
        self._of_batch: dict[str, Any] = {}
        for name, function in (given or {}).items():
            if not isinstance(name, str) or not callable(function):
                raise ConfigError(f"metrics must be callables by name, but {name!r} is {function!r}.")
            if name in _TAKEN:
                raise ConfigError(f"A metric cannot be called {name!r}, as darkit's own value is; choose another name.")
            if is_metric(function):
                self._of_batch[name] = copy.deepcopy(function)
                function.reset()
            self._functions[name] = function

    def __bool__(self) -> bool:
        return bool(self._functions)

    @property
    def need_outputs(self) -> list[str]:
        """Names of those that need outputs and target."""
        return [name for name, function in self._functions.items() if not takes_model(function)]

    def compute(self, model: nn.Module, batch: Any, outputs: Any, target: Any) -> dict[str, Any]:
        """Computes all of them; in an evaluation a torchmetrics object is returned itself, with the batch in it."""
        if isinstance(outputs, Tensor):
            outputs = outputs.detach()
        training = torch.is_grad_enabled()
        values: dict[str, Any] = {}
        with torch.no_grad():
            for name, function in self._functions.items():
                arguments = (model, batch) if takes_model(function) else (outputs, target)
                try:
                    values[name] = self._of_one(name, arguments, training)
                except _MISFITS as error:
                    described = f"{type(error).__name__}: {error}"
                    raise BatchError(f"The metric {name!r} failed on a batch: {described}") from error
        return values

    def _of_one(self, name: str, arguments: tuple[Any, Any], training: bool) -> Any:
        function = self._functions[name]
        if name not in self._of_batch:
            return function(*arguments)
        metric = self._of_batch[name] if training else function
        if isinstance(arguments[0], Tensor):
            metric.to(arguments[0].device)
        if training:
            metric.reset()
        metric.update(*arguments)
        return metric.compute() if training else metric


def takes_model(function: Callable[..., Any]) -> bool:
    """Whether the first parameter of a callable is called ``model``."""
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        first = next(iter(inspect.signature(called).parameters.values()), None)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return first is not None and first.name == "model"


def is_metric(value: Any) -> bool:
    """Whether this is a torchmetrics object or a collection of them."""
    if not isinstance(value, nn.Module) or "torchmetrics" not in sys.modules:
        return False
    from torchmetrics import Metric, MetricCollection

    return isinstance(value, Metric | MetricCollection)


def computed(name: str, metric: Any) -> dict[str, Any]:
    """Computes a torchmetrics object.

    Returns:
        Its value under its name; where it has several by name, each under its own.
    """
    value = metric.compute()
    return dict(value) if isinstance(value, Mapping) else {name: value}


def metrics_of(module: nn.Module) -> dict[str, Any]:
    """Finds the torchmetrics objects among a module's parts, by their places."""
    if "torchmetrics" not in sys.modules:
        return {}
    from torchmetrics import Metric

    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


@contextmanager
def fresh_metrics(module: nn.Module) -> Iterator[None]:
    """Lets a module's torchmetrics objects begin anew for a block, and gives them their own states back after it."""
    parts = list(metrics_of(module).values())
    states = [{name: _own(getattr(part, name)) for name in (*part.metric_state, *_KEPT)} for part in parts]
    for part in parts:
        part.reset()
    try:
        yield
    finally:
        for part, state in zip(parts, states, strict=True):
            for name, value in state.items():
                setattr(part, name, value)


def collect_metrics(module: nn.Module) -> dict[str, Any]:
    """Collects the states of a module's torchmetrics objects, which its ``state_dict`` leaves out, for a checkpoint."""
    return {
        name: {"updates": part._update_count, "state": part.metric_state} for name, part in metrics_of(module).items()
    }


def restore_metrics(module: nn.Module, states: Mapping[str, Any]) -> None:
    """Gives a module's torchmetrics objects the states back that a checkpoint holds."""
    for name, part in metrics_of(module).items():
        found = states.get(name)
        if found is None:
            continue
        part.reset()
        for key, value in found["state"].items():
            setattr(part, key, _moved(value, part.device))
        part._update_count = found["updates"]


def require_metric(name: str, known: Collection[str], step: int, *, now: bool = False) -> None:
    """Raise `ConfigError` if a monitored metric is missing after an evaluation.

    Args:
        name: The metric.
        known: Names of the metrics up to this step.
        step: The step, for the message.
        now: Whether the metric is due even without an evaluation.
    """
    if name not in known and (now or any(other.startswith("val_") for other in known)):
        raise ConfigError(f"The monitor {name!r} is not among the metrics of step {step}. {nearest(name, known)}.")


def refuse_without_outputs(metrics: Metrics, way: str) -> None:
    """Raises `LossError` where metrics of outputs and target meet a step that does not show them."""
    if names := metrics.need_outputs:
        raise LossError(
            f"The metrics {', '.join(names)} need outputs and target, which {way} does not show: return them from it, "
            "as {'loss': ..., 'accuracy': ...}, or give metrics whose parameters are model and batch."
        )


def _own(value: Any) -> Any:
    return value.copy() if isinstance(value, list) else value  # a reset empties the list itself


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
