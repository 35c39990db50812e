"""A model that steps an optimizer itself while its loss is computed is refused, in whichever step it does so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from darkit.errors import LossError


@contextmanager
def refusing_steps(adapter: Any) -> Iterator[None]:
    """Refuse a step of any optimizer while an adapter computes loss and gradients of a batch, within the block.

    Optimizers of other tensors than the model's may be stepped, and any while callbacks and evaluations run.

    Args:
        adapter: The `darkit.engine.steps.adapter.Adapter`.

    Raises:
        LossError: There is one: that optimizer's state would not be saved, and the weights would be stepped twice.
    """
    name = type(adapter.module).__name__

    def refuse(optimizer: Optimizer, *arguments: Any) -> None:
        if not adapter.settled or not adapter.computes:
            return
        stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if stepped.isdisjoint(map(id, adapter.module.parameters())):
            return
        raise LossError(
            f"{name} steps a {type(optimizer).__name__} itself while its loss is computed, and fit steps one too. "
            "Return the loss and give optimizer=, or write the loop in the train method of a darkit.core.Trainer "
            "subclass."
        )

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()
