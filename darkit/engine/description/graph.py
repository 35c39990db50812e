"""The graph of a model: its modules with shapes and parameters, and which of them feed which, seen in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from darkit.engine.steps.calls import ModuleCalls, tensors_of
from darkit.runs.graph import INPUT, Node


class _Origins(TorchFunctionMode):
    """Knows of every tensor from which leaves it comes, through the functions of torch."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, frozenset[str]]] = {}  # the tensor is held, so that its id is its own

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        found = self.of((args, kwargs))
        if found:
            self.mark(output, found)
        return output

    def of(self, value: Any) -> frozenset[str]:
        """Return the leaves that the tensors in a value come from."""
        none: frozenset[str] = frozenset()
        return none.union(*(self._known[id(one)][1] for one in tensors_of(value) if id(one) in self._known))

    def mark(self, value: Any, origins: frozenset[str]) -> None:
        """Record where the tensors in a value come from."""
        self._known.update({id(one): (one, origins) for one in tensors_of(value)})


def trace_modules(model: nn.Module, call: Callable[[], Any], inputs: Any) -> list[Node]:
    """Return the modules that a call of a model uses, in the order of their first calls.

    Args:
        model: The model.
        call: Calls it.
        inputs: The tensors it is called with, in any nesting.
    """
    origins = _Origins()
    origins.mark(inputs, frozenset((INPUT,)))
    calls = ModuleCalls(model, origins)
    with calls.seen(), origins:
        call()
    if calls.error is not None:
        raise calls.error
    return [node for node in calls.graph().nodes if node.calls]
