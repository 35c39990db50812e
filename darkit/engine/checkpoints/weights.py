"""The weights of a checkpoint, loaded into a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from darkit.engine.steps.parts import is_split, part_of
from darkit.errors import CheckpointMismatchError

_MOST_KEYS = 3
_WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and DataParallel


def load_weights(model: nn.Module, content: Mapping[str, Any], *, own_types: bool = True) -> None:
    """Load a checkpoint's weights strictly.

    Args:
        model: The model; wrappers are ignored.
        content: The checkpoint's content.
        own_types: Whether the model keeps its floating-point dtypes; otherwise it gets those of the checkpoint.

    Raises:
        CheckpointMismatchError: The weights do not fit; the message names both classes and the first differing keys.
    """
    model = bare(model)
    wanted, found = model.state_dict(), content["state_dict"]
    found = _without_wrapper(found, wanted)
    differing = [f"{key!r} is missing" for key in wanted if key not in found]
    differing += [f"{key!r} is unexpected" for key in found if key not in wanted]
    differing += [
        f"{key!r} has shape {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if isinstance(found.get(key), Tensor) and _is_sized(value) and found[key].shape != value.shape
    ]
    if differing:
        more = f" and {len(differing) - _MOST_KEYS} more" if len(differing) > _MOST_KEYS else ""
        raise CheckpointMismatchError(
            f"The checkpoint of a {content.get('model_class', 'model of unknown class')} does not fit this "
            f"{class_path(type(model))}: {', '.join(differing[:_MOST_KEYS])}{more}."
        )
    if not own_types:
        _cast(model, found)
    split = {key: part_of(found[key], value) for key, value in wanted.items() if is_split(value)}
    if split:
        found = {**found, **split}
    model.load_state_dict(found, strict=True)


def bare(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers: ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``, Fabric."""
    fabric = sys.modules.get("lightning.fabric")  # slow to import
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or (
            fabric is not None and fabric.is_wrapped(model)
        ):
            inner = model.module
        if inner is None:
            return model
        model = inner


def class_path(cls: type) -> str:
    """Return the import path of a class, such as ``darkit.models.gpt.GPT``."""
    wrapper = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)  # slow to import
    if wrapper is not None and issubclass(cls, wrapper):  # the class that fully_shard derives from a module's own
        cls = next(base for base in cls.__mro__ if not issubclass(base, wrapper))
    return f"{cls.__module__}.{cls.__qualname__}"


def _without_wrapper(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove the key prefixes of wrappers with which a checkpoint was saved."""
    for prefix in _WRAPPERS:
        if found and all(key.startswith(prefix) for key in found) and not any(key.startswith(prefix) for key in wanted):
            return _without_wrapper({key.removeprefix(prefix): value for key, value in found.items()}, wanted)
    return found


def _cast(model: nn.Module, found: Mapping[str, Any]) -> None:
    """Cast a model to the floating-point dtypes of saved weights; the whole model if all have the same dtype."""
    floats = {key: value.dtype for key, value in found.items() if _is_float(value)}
    kinds = set(floats.values())
    if len(kinds) == 1:
        model.to(kinds.pop())
        return
    parts = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for key, dtype in floats.items():
        if _is_float(parts.get(key)) and parts[key].dtype != dtype:
            parts[key].data = parts[key].data.to(dtype)


def _is_sized(value: Any) -> bool:
    return isinstance(value, Tensor) and not is_lazy(value)


def _is_float(value: Any) -> bool:
    return _is_sized(value) and value.is_floating_point()
