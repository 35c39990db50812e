"""Refusal of LightningModules, LightningDataModules and callbacks that darkit's loop would partly ignore.

`darkit.fit` trains a LightningModule as a plain module by its ``training_step`` and ``validation_step`` (with
``self.log`` in them), ``forward`` and ``hparams``. Anything else that it overrides would be ignored and is therefore
refused, unless Lightning does not call it in a training either (``test_step``, ``predict_step`` and their hooks).
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import lightning
from lightning.pytorch import callbacks as stock
from torch import nn

from darkit.engine.callbacks import EmaWeights
from darkit.engine.native_training import trains_itself
from darkit.errors import ConfigError, DataError, ModelError, listing

P = ParamSpec("P")
R = TypeVar("R")
_NOT_IN_TRAINING = ("on_test_", "on_predict_")
_MODULE_METHODS = (
    "backward",
    "clip_gradients",
    "log",
    "log_dict",
    "lr_scheduler_step",
    "manual_backward",
    "optimizer_step",
    "optimizer_zero_grad",
    "prepare_data",
    "setup",
    "teardown",
    "train_dataloader",
    "training_epoch_end",
    "training_step_end",
    "transfer_batch_to_device",
    "val_dataloader",
    "validation_epoch_end",
    "validation_step_end",
)
_DATA_METHODS = (
    "load_state_dict",
    "on_after_batch_transfer",
    "on_before_batch_transfer",
    "state_dict",
    "transfer_batch_to_device",
)
NEVER_CALLED = (
    "on_before_zero_grad",
    "on_load_checkpoint",
    "on_sanity_check_end",
    "on_sanity_check_start",
    "on_save_checkpoint",
    "on_validation_batch_end",
    "on_validation_batch_start",
    "on_validation_end",
    "on_validation_epoch_end",
    "on_validation_epoch_start",
    "on_validation_start",
)
"""Hooks of a callback that Lightning calls in a training and darkit's loop does not."""

_REFUSED: Sequence[tuple[tuple[type, ...], str]] = (
    ((stock.LearningRateFinder,), "it trains before the training, which no log would show: set lr"),
    ((stock.BatchSizeFinder,), "it trains before the training, which no log would show: set batch_size"),
    ((EmaWeights,), "use ema_decay"),
)
_NEED_LIGHTNING = (
    stock.Checkpoint,
    stock.GradientAccumulationScheduler,
    stock.LearningRateMonitor,
    stock.DeviceStatsMonitor,
    stock.ThroughputMonitor,
    stock.ProgressBar,
    stock.BackboneFinetuning,
    stock.EarlyStopping,
    stock.StochasticWeightAveraging,
    stock.WeightAveraging,
    stock.ModelPruning,
    stock.ModelSummary,
)
_ONLY_MEASURES = (stock.Timer,)  # its validation hooks only add up seconds


def refuse_module(model: nn.Module) -> None:
    """Refuse a LightningModule that would be partly ignored.

    Raises:
        ModelError: It overrides something that darkit does not honour, or is from a package other than `lightning`.
    """
    name = type(model).__name__
    if any(part.__module__.startswith("pytorch_lightning.") for part in type(model).__mro__):
        raise ModelError(
            f"{name} is a LightningModule of the package pytorch_lightning, which darkit does not support. Import "
            "LightningModule from lightning.pytorch, or give a plain torch.nn.Module."
        )
    if not isinstance(model, lightning.LightningModule):
        return
    hooks = [hook for hook in dir(lightning.LightningModule) if hook.startswith(("on_", "configure_"))]
    wanted = sorted({*hooks, *_MODULE_METHODS})
    ignored = [hook for hook in wanted if not hook.startswith(_NOT_IN_TRAINING) and _overrides(model, hook)]
    if not model.automatic_optimization:
        ignored.append("automatic_optimization=False")
    if "dataloader_iter" in inspect.signature(model.training_step).parameters:
        ignored.append("dataloader_iter of training_step")
    if ignored:
        raise ModelError(
            f"fit would train {name}, a LightningModule without configure_optimizers, with darkit's optimizer and loop "
            f"and ignore its {listing(ignored)}. Give it a configure_optimizers: then Lightning's own loop trains it, "
            "with everything that it defines."
        )


def refuse_data_module(data: lightning.LightningDataModule) -> None:
    """Refuse a LightningDataModule that would be partly ignored. Raises `DataError`."""
    ignored = [name for name in _DATA_METHODS if _overrides(data, name)]
    if ignored:
        raise DataError(
            f"fit would ignore {listing(ignored)} of the LightningDataModule {type(data).__name__}. Do that work in "
            "the dataset, in collate_fn or in the model, or train with lightning.Trainer."
        )


def refuse_callbacks(callbacks: Any) -> None:
    """Refuse callbacks that no loop of darkit's honours.

    Raises:
        ConfigError: A callback is refused, or is not a Lightning callback.
    """
    if not isinstance(callbacks, Sequence) or not all(isinstance(item, lightning.Callback) for item in callbacks):
        raise ConfigError(f"callbacks must be a list of lightning.Callback objects, not {callbacks!r}.")
    for callback in callbacks:
        for kinds, instead in _REFUSED:
            if isinstance(callback, kinds):
                raise ConfigError(f"The callback {type(callback).__name__} does not work in fit: {instead}.")


def needing_lightning(callbacks: Sequence[lightning.Callback]) -> list[str]:
    """Return the names of callbacks that work only under Lightning's own loop."""
    return [
        type(callback).__name__
        for callback in callbacks
        if isinstance(callback, _NEED_LIGHTNING)
        or any(_overrides(callback, hook) for hook in NEVER_CALLED)
        or any(_logs_through_module(callback, hook) for hook in dir(lightning.Callback) if hook.startswith("on_"))
    ]


def _logs_through_module(callback: lightning.Callback, hook: str) -> bool:
    """Return whether the code of a hook calls ``log`` or ``log_dict`` of its second argument, the module."""
    function = getattr(callback, hook)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None or not _overrides(callback, hook):
        return False
    place = 2 if hasattr(function, "__func__") else 1
    if code.co_argcount <= place:
        return False
    module = code.co_varnames[place]
    found = list(dis.get_instructions(code))
    return any(
        one.opname.startswith("LOAD_FAST") and one.argval == module and other.argval in ("log", "log_dict")
        for one, other in itertools.pairwise(found)
    )


def with_data_module(train: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function whose second argument, ``data``, may be a LightningDataModule that it sets up.

    Its ``on_exception`` is called on an error, and its ``teardown`` always.
    """

    @functools.wraps(train)
    def trained(*args: P.args, **kwargs: P.kwargs) -> R:
        data = args[1]
        model = args[0]
        if not isinstance(data, lightning.LightningDataModule) or (
            isinstance(model, nn.Module) and trains_itself(model)
        ):
            return train(*args, **kwargs)
        refuse_data_module(data)
        try:
            return train(*args, **kwargs)
        except BaseException as error:
            data.on_exception(error)
            raise
        finally:
            data.teardown("fit")

    return trained


def _overrides(thing: Any, name: str) -> bool:
    """Return whether an object overrides a method of Lightning's, in its class or as an attribute."""
    if name in vars(thing):
        return True
    owner = next((part for part in type(thing).__mro__ if name in vars(part)), None)
    if owner is None or owner in _ONLY_MEASURES:
        return False
    bases = (lightning.LightningModule, lightning.LightningDataModule, lightning.Callback)
    return not any(isinstance(thing, base) and issubclass(base, owner) for base in bases)
