"""Lightning's calls of hooks, with less work around each.

Lightning names the current hook on the module before and after each call, 44 times in a step, through
`torch.nn.Module.__setattr__`, and calls hooks that nobody has defined: a third of all calls of a step. Like
`darkit.engine.lightning`, this file touches what Lightning does not promise; ``tests/engine/test_lightning_hooks.py``
checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer import call
from torch import nn

_EMPTY = {
    name: getattr(lightning.LightningModule, name)
    for name in (
        *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward"),
        *("on_after_backward", "on_before_optimizer_step"),
    )
}
"""The module's hooks that do nothing unless it defines them."""
_PASSING = {
    name: getattr(lightning.LightningModule, name) for name in ("on_before_batch_transfer", "on_after_batch_transfer")
}
"""Those that return the batch."""
_FX = "_current_fx_name"
_stock: dict[str, Callable[..., Any]] = {
    name: getattr(call, name) for name in ("_call_lightning_module_hook", "_call_callback_hooks", "_call_strategy_hook")
}
_modules: dict[lightning.Trainer, lightning.LightningModule] = {}  # of the trainers whose hooks are called here


def quick_hooks(trainer: lightning.Trainer, module: lightning.LightningModule) -> Callable[[], None]:
    """Have the hooks of a trainer called with less work around them; return what undoes this.

    Hooks that are defined are called in Lightning's order with its arguments, and see the same name of the hook.
    Nothing changes for a trainer with a profiler, or a module that has a ``__setattr__`` of its own.
    """
    if type(trainer.profiler) is not PassThroughProfiler or type(module).__setattr__ is not nn.Module.__setattr__:  # type: ignore[attr-defined]
        return lambda: None
    _modules[trainer] = module
    for name, function in _QUICK.items():
        setattr(call, name, function)

    def undo() -> None:
        _modules.pop(trainer, None)
        if not _modules:
            for name, function in _stock.items():
                setattr(call, name, function)

    return undo


def _call_module(trainer: lightning.Trainer, hook_name: str, *args: Any, pl_module: Any = None, **kwargs: Any) -> Any:
    module = _modules.get(trainer)
    if module is None or pl_module not in (None, module):
        return _stock["_call_lightning_module_hook"](trainer, hook_name, *args, pl_module=pl_module, **kwargs)
    hook = getattr(module, hook_name)
    function = getattr(hook, "__func__", hook)
    if function is _EMPTY.get(hook_name):
        return None
    if function is _PASSING.get(hook_name):
        return args[0]
    return _named(module, hook_name, hook, args, kwargs)


def _call_callbacks(
    trainer: lightning.Trainer, hook_name: str, *args: Any, monitoring_callbacks: bool | None = None, **kwargs: Any
) -> None:
    module = _modules.get(trainer)
    if module is None:
        _stock["_call_callback_hooks"](trainer, hook_name, *args, monitoring_callbacks=monitoring_callbacks, **kwargs)
        return
    empty = getattr(Callback, hook_name, None)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if monitoring_callbacks in (None, isinstance(callback, EarlyStopping | Checkpoint)):
            hook = getattr(callback, hook_name)
            if getattr(hook, "__func__", hook) is not empty:
                _named(module, hook_name, hook, (trainer, module, *args), kwargs)


def _call_strategy(trainer: lightning.Trainer, hook_name: str, *args: Any, **kwargs: Any) -> Any:
    module = _modules.get(trainer)
    if module is None:
        return _stock["_call_strategy_hook"](trainer, hook_name, *args, **kwargs)
    hook = getattr(trainer.strategy, hook_name)
    if hook_name == "on_train_batch_start" and getattr(hook, "__func__", hook) is Strategy.on_train_batch_start:
        return None
    return _named(module, hook_name, hook, args, kwargs)


def _named(
    module: lightning.LightningModule, name: str, hook: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a hook while the module has its name; after an error it keeps the name, as with Lightning."""
    if not callable(hook):
        return None
    state = vars(module)
    before, state[_FX] = state[_FX], name
    output = hook(*args, **kwargs)
    state[_FX] = before
    return output


_QUICK = {
    "_call_lightning_module_hook": _call_module,
    "_call_callback_hooks": _call_callbacks,
    "_call_strategy_hook": _call_strategy,
}
