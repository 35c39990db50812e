"""Metrics of outputs and targets, and torchmetrics objects, which accumulate over an evaluation."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.device import move_to_device
from darkit.errors import BatchError, ConfigError, LossError, nearest
from darkit.runs.log import DEFAULT_COLUMNS

_TAKEN = (*DEFAULT_COLUMNS, "loss", "count")
_MISFITS = (TypeError, ValueError, IndexError, KeyError, AttributeError)
_KEPT = ("_update_count", "_computed", "_forward_cache")


class Metrics:
    """The ``metrics=`` of a run.

    Args:
        given: Callables by name: of outputs and target, or of model and batch if the first parameter is called
            ``model``; or torchmetrics objects. An evaluation computes these over all batches, a training step over one,
            and logs the mean over the batches of a step in all processes.

    Raises:
        ConfigError: Not a mapping of names to callables, or a name is reserved.
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
                raise ConfigError(f"The metric name {name!r} is reserved; choose another name.")
            if is_metric(function):
                self._of_batch[name] = _of_one_process(copy.deepcopy(function))
                function.reset()
            self._functions[name] = function

    def __bool__(self) -> bool:
        return bool(self._functions)

    @property
    def need_outputs(self) -> list[str]:
        """Names of the metrics of outputs and target."""
        return [name for name, function in self._functions.items() if not takes_model(function)]

    def compute(self, model: nn.Module, batch: Any, outputs: Any, target: Any) -> dict[str, Any]:
        """Compute all metrics of a batch; in an evaluation, torchmetrics objects are updated and returned."""
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


def _of_one_process(metric: Any) -> Any:
    """Keep a torchmetrics object from waiting for other processes at every training step; see `Metrics`."""
    for part in metric.modules():
        if hasattr(part, "_to_sync"):
            part.sync_on_compute = part._to_sync = False
    return metric


def takes_model(function: Callable[..., Any]) -> bool:
    """Return whether the first parameter of a callable is called ``model``."""
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        first = next(iter(inspect.signature(called).parameters.values()), None)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return first is not None and first.name == "model"


def is_metric(value: Any) -> bool:
    """Return whether a value is a torchmetrics object or a collection of them."""
    if not isinstance(value, nn.Module) or "torchmetrics" not in sys.modules:
        return False
    from torchmetrics import Metric, MetricCollection

    return isinstance(value, Metric | MetricCollection)


def computed(name: str, metric: Any) -> dict[str, Any]:
    """Compute a torchmetrics object.

    Returns:
        Its value by name; several values under their own names.
    """
    value = metric.compute()
    return dict(value) if isinstance(value, Mapping) else {name: value}


def metrics_of(module: nn.Module) -> dict[str, Any]:
    """Return the torchmetrics objects inside a module, by path."""
    if "torchmetrics" not in sys.modules:
        return {}
    from torchmetrics import Metric

    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


@contextmanager
def fresh_metrics(module: nn.Module) -> Iterator[None]:
    """Reset a module's torchmetrics objects for a block and restore their states afterwards."""
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
    """Return the states of a module's torchmetrics objects, which its ``state_dict`` lacks, for a checkpoint."""
    return {
        name: {"updates": part._update_count, "state": part.metric_state} for name, part in metrics_of(module).items()
    }


def copy_states(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `collect_metrics` does for the result of `metrics_of`, which later updates do not change.

    Tensors in a list are never updated in place, so only the list is copied, which grows in an evaluation.
    """
    return {
        name: {
            "updates": part._update_count,
            "state": {
                key: value.detach().clone() if isinstance(value, Tensor) else _own(value)
                for key, value in part.metric_state.items()
            },
        }
        for name, part in metrics.items()
    }


def restore_metrics(module: nn.Module, states: Mapping[str, Any]) -> None:
    """Restore the states of a module's torchmetrics objects from a checkpoint."""
    for name, part in metrics_of(module).items():
        found = states.get(name)
        if found is None:
            continue
        part.reset()
        for key, value in found["state"].items():
            setattr(part, key, move_to_device(value, part.device))
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
    """Refuse metrics of outputs and target for a step that does not return them. Raises `LossError`."""
    if names := metrics.need_outputs:
        raise LossError(
            f"The metrics {', '.join(names)} need outputs and target, which {way} does not return: return their "
            "values from it, as {'loss': ..., 'accuracy': ...}, or use metrics of model and batch."
        )


def _own(value: Any) -> Any:
    return value.copy() if isinstance(value, list) else value  # a reset empties the list itself
