"""What ``self.log`` keeps in Lightning: read, restored, and written with less work.

Like `darkit.engine.lightning`, this file touches what Lightning does not promise; ``tests/engine/test_lightning.py``
checks it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor

from darkit.engine.log.media import is_media


def logged_metrics(trainer: lightning.Trainer) -> dict[str, dict[str, Any]]:
    """Return the values that callbacks and schedules may monitor, by kind."""
    logged = trainer._logger_connector
    return {
        "callback": dict(logged._callback_metrics),
        "log": dict(logged._logged_metrics),
        "bar": dict(logged._progress_bar_metrics),
    }


def restore_logged_metrics(trainer: lightning.Trainer, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore values from `logged_metrics`."""
    logged: Any = trainer._logger_connector
    logged._callback_metrics.update(values["callback"])
    logged._logged_metrics.update(values["log"])
    logged._progress_bar_metrics.update(values["bar"])


_OF_METADATA = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx"),
    *("dataloader_idx", "metric_attribute"),
)
_OF_RESULT = ("has_reset", "_update_count", "_forward_cache", "value", "cumulated_batch_size")


def epoch_results(trainer: lightning.Trainer) -> list[tuple[_ResultMetric, dict[str, Any]]]:
    """Return what ``self.log`` has accumulated in this training epoch: each result with its values now.

    Lightning replaces these values and does not change them in place, so they need no copy.
    """
    found = []
    for result in trainer.fit_loop.epoch_loop._results.values():
        names = _OF_RESULT if result.is_tensor else _OF_RESULT[:3]
        found.append((result, {name: result.__dict__[name] for name in names if name in result.__dict__}))
    return found


def describe_results(results: list[tuple[_ResultMetric, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what `epoch_results` found as plain values, for a checkpoint."""
    return [
        {
            "values": values,
            "is_tensor": result.is_tensor,
            "meta": {name: getattr(result.meta, name) for name in _OF_METADATA},
            "reduce": result.meta.reduce_fx.__name__,
            "builtin": result.meta.reduce_fx in (max, min, sum),
            "sync": {"should": result.meta.sync.should, "rank_zero_only": result.meta.sync.rank_zero_only},
        }
        for result, values in results
        if result.meta.sync.group is None
    ]


def restore_results(trainer: lightning.Trainer, saved: list[Mapping[str, Any]]) -> None:
    """Restore the results of an epoch from `describe_results`."""
    results: Any = trainer.fit_loop.epoch_loop._results
    module: Any = trainer.lightning_module
    for entry in saved:
        meta = _Metadata(**entry["meta"], reduce_fx=getattr(builtins if entry["builtin"] else torch, entry["reduce"]))
        meta.sync = _Sync(
            fn=trainer.strategy.reduce,
            _should=entry["sync"]["should"],
            rank_zero_only=entry["sync"]["rank_zero_only"],
        )
        result = _ResultMetric(meta, entry["is_tensor"])
        values = dict(entry["values"])
        if not result.is_tensor:
            values["value"] = module.get_submodule(entry["meta"]["metric_attribute"])
        result.__dict__.update(values)
        index = entry["meta"]["dataloader_idx"]
        suffix = "" if index is None or not entry["meta"]["add_dataloader_idx"] else f".{index}"
        fx = entry["meta"]["fx"].removesuffix(suffix)
        results[f"{fx}.{entry['meta']['name']}{suffix}"] = result.to(module.device)


def log_media(module: lightning.LightningModule, put: Callable[[str, Any], None]) -> Callable[[], None]:
    """Have ``self.log`` and ``self.log_dict`` take images, figures and other media; return what undoes this.

    Args:
        module: The module.
        put: Called with the name and the value of each medium, which Lightning would refuse.
    """
    own = vars(module).get("log")
    original: Any = module.log
    if not callable(original):  # the module uses the name for something else
        return lambda: None

    def log(name: str, value: Any, *arguments: Any, **settings: Any) -> None:
        if not isinstance(value, Tensor | int | float) and is_media(value):
            put(name, value)
        else:
            original(name, value, *arguments, **settings)

    object.__setattr__(module, "log", log)
    return lambda: module.__dict__.pop("log", None) if own is None else object.__setattr__(module, "log", own)


def logs_its_own_way(module: lightning.LightningModule) -> bool:
    """Return whether a module overrides ``log``, or has an attribute of that name."""
    return "log" in vars(module) or type(module).log is not lightning.LightningModule.log


def log_faster(trainer: lightning.Trainer, module: lightning.LightningModule) -> Callable[[], None]:
    """Have ``self.log`` in ``training_step`` repeat a call without checking it again; return what undoes this.

    The first call of an epoch with some arguments is Lightning's own, which checks them and makes the result. Later
    ones with the same arguments and a number or a tensor only update that result, as Lightning would.
    """
    original = module.log
    connector: Any = trainer._logger_connector
    known: dict[Any, _ResultMetric] = {}
    update = _ResultMetric.update

    def log(name: str, value: Any, *arguments: Any, batch_size: int | None = None, **settings: Any) -> None:
        hook = module._current_fx_name
        results = trainer.fit_loop.epoch_loop._results
        if hook != "training_step" or connector._first_loop_iter is not False:
            known.clear()
        else:
            key = _key(name, arguments, settings)
            result = known.get(key)
            if result is not None and not result.has_reset and (number := _scalar(value, result)) is not None:
                size = results._extract_batch_size(result, batch_size, result.meta)
                result._computed, result._update_count = None, result._update_count + 1
                update(result, number, size)
                connector._current_fx = hook
                return
        if batch_size is not None:
            settings["batch_size"] = batch_size
        original(name, value, *arguments, **settings)
        if hook == "training_step" and connector._first_loop_iter is False:
            made = results.get(f"training_step.{name}")
            settings.pop("batch_size", None)
            if made is not None and made.is_tensor and not made.meta.sync.should and not made.meta.enable_graph:
                known[_key(name, arguments, settings)] = made

    object.__setattr__(module, "log", log)
    return lambda: object.__setattr__(module, "log", original)


def _key(name: str, arguments: tuple[Any, ...], settings: Mapping[str, Any]) -> Any:
    """Return what is equal for equal calls; something new for arguments that cannot be compared."""
    key = (name, arguments, *settings.items())
    try:
        hash(key)
    except TypeError:
        return object()
    return key


def _scalar(value: Any, result: _ResultMetric) -> Tensor | None:
    """Return a number or a tensor of one element as Lightning keeps it, or None for anything else."""
    if isinstance(value, Tensor):
        same = value.numel() == 1 and value.is_floating_point() and value.device == result.value.device
        if not same:
            return None
        # the builtins return one of two tensors itself, which must not be the user's: that may change in place
        is_kept = result.meta.reduce_fx in (max, min)
        return (value.detach().clone() if is_kept else value.detach()).squeeze()
    if type(value) in (int, float):
        return torch.tensor(value, device=result.value.device, dtype=torch.get_default_dtype())
    return None
