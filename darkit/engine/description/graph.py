"""The graph of a model: its modules with shapes and parameters, and which of them feed which, seen in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

INPUT = "input"
"""What feeds a module when it is nothing but the model's own input."""
_DEPTH = 4  # of nested containers that are searched for tensors


@dataclass
class Node:
    """A module of the graph.

    Attributes:
        name: Its place in the model; empty for the model itself.
        kind: The name of its class.
        parameters: Number of its parameters, with those of its parts.
        is_leaf: Whether it has no parts that are called.
        calls: How often it was called.
        inputs: The shapes of the tensors it got in its first call.
        outputs: The shapes of the tensors it returned in its first call.
        sources: The leaves whose outputs feed it, through whatever functions are between, in the order of their calls;
            `INPUT` is the model's input.
    """

    name: str
    kind: str
    parameters: int
    is_leaf: bool
    calls: int = 0
    inputs: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


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
    nodes: dict[str, Node] = {}
    with _hooked(model, nodes, origins), origins:
        call()
    order = {name: place for place, name in enumerate([INPUT, *nodes])}
    for node in nodes.values():
        node.sources.sort(key=lambda name: order.get(name, 0))
    return list(nodes.values())


@contextmanager
def _hooked(model: nn.Module, nodes: dict[str, Node], origins: _Origins) -> Iterator[None]:
    """Fill nodes while the model is called within the block."""
    names = {part: name for name, part in model.named_modules()}

    def enter(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        name = names[module]
        if name not in nodes:
            size = sum(parameter.numel() for parameter in module.parameters())
            nodes[name] = Node(name, type(module).__name__, size, is_leaf=not list(module.children()))
            nodes[name].inputs = [tuple(one.shape) for one in tensors_of((args, dict(kwargs)))]
        nodes[name].calls += 1
        nodes[name].sources += sorted(origins.of((args, dict(kwargs))) - {*nodes[name].sources})

    def leave(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        node = nodes[names[module]]
        node.outputs = node.outputs or [tuple(one.shape) for one in tensors_of(output)]
        if node.is_leaf:
            origins.mark(output, frozenset((node.name or INPUT,)))

    handles = []
    for part in names:
        handles.append(part.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(part.register_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(value: Any, depth: int = _DEPTH) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item, depth - 1)
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item, depth - 1)
