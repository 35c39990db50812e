"""Adapters of peft: what a ``PeftModel`` adds to its base model, as data, and built again."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from darkit.errors import ModelError
from darkit.runs.configs import plain

_TYPES = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "VERA", "LN_TUNING")
"""The types that are built from a run's record; others load files or import modules that their config names."""
_MOST_NAMES = 3


def is_adapted(model: nn.Module) -> bool:
    """Return whether a model is a ``PeftModel``; does not import peft."""
    cls = getattr(sys.modules.get("peft"), "PeftModel", None)
    return isinstance(cls, type) and isinstance(model, cls)


def describe_adapter(model: Any) -> dict[str, Any]:
    """Describe the adapter of a ``PeftModel``.

    Returns:
        ``name`` and ``config`` of the adapter, and ``also_trained``: names of trained weights that are not part of it.

    Raises:
        ModelError: It has several adapters, or one that is not built from a record.
    """
    if len(model.peft_config) != 1:
        raise ModelError(f"it has {len(model.peft_config)} adapters, and only a single one is recorded")
    name, config = next(iter(model.peft_config.items()))
    values = plain(config.to_dict())
    _check(values)
    saved = {_place(value) for value in _adapter_state(model, name).values()}
    others = [key for key, value in model.named_parameters() if value.requires_grad and _place(value) not in saved]
    return {"name": name, "config": values, "also_trained": others[:_MOST_NAMES]}


def attach_adapter(base: nn.Module, adapter: Mapping[str, Any]) -> nn.Module:
    """Add a recorded adapter with fresh weights to a base model.

    Args:
        base: The base model, which is changed.
        adapter: What `describe_adapter` returned, possibly from an untrusted run.

    Raises:
        ModelError: peft is missing, or the adapter is not one that is built from a record.
    """
    try:
        import peft
    except ImportError as error:
        raise ModelError("its adapter needs peft: pip install peft") from error
    values = adapter.get("config")
    if not isinstance(values, Mapping) or not isinstance(adapter.get("name"), str):
        raise ModelError("run.json has an invalid adapter")
    _check(values)
    config: Any = peft.PEFT_TYPE_TO_CONFIG_MAPPING[values["peft_type"]](**values)
    initial = getattr(config, "init_lora_weights", None)
    if isinstance(initial, str):  # decompositions of weights that the checkpoint replaces
        config.init_lora_weights = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the user's call, when the model was made
        model: nn.Module = peft.get_peft_model(base, config, adapter_name=adapter["name"])
    config.base_model_name_or_path = values.get("base_model_name_or_path")
    if isinstance(initial, str):
        config.init_lora_weights = initial
    return model


def other_adapter(model: Any, twin: Any) -> str:
    """Return the first setting in which the adapter of a rebuilt model differs, or an empty string."""
    if type(model) is not type(twin):
        return "class"
    wanted, found = (plain(next(iter(part.peft_config.values())).to_dict()) for part in (model, twin))
    return next((str(key) for key in wanted if found.get(key) != wanted[key]), "")


def _check(values: Mapping[str, Any]) -> None:
    if values.get("peft_type") not in _TYPES:
        raise ModelError(f"an adapter of type {str(values.get('peft_type'))[:40]!r} is not built from a record")
    if values.get("megatron_config"):
        raise ModelError("an adapter for Megatron is not built from a record")


def _adapter_state(model: Any, name: str) -> Mapping[str, Tensor]:
    from peft import get_peft_model_state_dict

    state: Mapping[str, Tensor] = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return state


def _place(value: Tensor) -> tuple[int, tuple[int, ...]]:
    return value.data_ptr(), tuple(value.shape)
