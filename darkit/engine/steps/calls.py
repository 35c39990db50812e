"""Which modules of a model are called, seen without a change to any of them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from darkit.runs.graph import INPUT, MOST_MODULES, Graph, Node

_CALL = nn.Module._call_impl.__code__
_DEPTH = 4  # of nested containers that are searched for tensors
_MOST_FUNCTIONS = 200_000  # of autograd that are looked at
_UNKNOWN = (
    "CheckpointFunctionBackward"  # what is inside has functions of its own, which come to be in the backward pass
)
_NONE: frozenset[str] = frozenset()


class Origins(Protocol):
    """Knows from which leaves of a model tensors come."""

    def of(self, value: Any) -> frozenset[str]:
        """Return the leaves that the tensors in a value come from."""
        ...

    def mark(self, value: Any, origins: frozenset[str]) -> None:
        """Record where the tensors in a value come from."""
        ...


class ModuleCalls:
    """Sees the calls of a model's modules within a block, through the interpreter's profiling function.

    Hooks on the modules would be seen in turn: torch leaves its fused paths for them, compiles code twice, and copies
    them with a module. The profiling function belongs to this thread, and changes nothing.

    Args:
        model: The model.
        origins: Knows what feeds what.
        only_first: Whether nothing more is seen once the model itself has returned.

    Attributes:
        error: What went wrong while a call was looked at, after which no further one is.
    """

    def __init__(self, model: nn.Module, origins: Origins, *, only_first: bool = False) -> None:
        self._model = model
        self._parts = dict(model.named_modules())
        self._names = {id(part): name for name, part in self._parts.items()}
        self._origins = origins
        self._only_first = only_first
        self._nodes: dict[str, Node] = {}
        self.error: Exception | None = None

    @contextmanager
    def seen(self) -> Iterator[None]:
        """See the calls of the block, unless somebody else profiles this thread."""
        if sys.getprofile() is not None:
            self.error = RuntimeError("another profiler is active")
            yield
            return
        see = self._see
        if "torch._dynamo.eval_frame" in sys.modules:  # it would compile this function inside of compiled code
            see = torch.compiler.disable(see)  # type: ignore[no-untyped-call]
        sys.setprofile(see)
        try:
            yield
        finally:
            if sys.getprofile() is see:
                sys.setprofile(None)

    def graph(self) -> Graph:
        """Return the modules, first those that were called; call it when they have their parameters."""
        parts = {**self._parts, **dict(self._model.named_modules())}  # a call may add and remove some
        names = [*self._nodes, *(name for name in parts if name not in self._nodes)]
        order = {name: place for place, name in enumerate([INPUT, *names])}
        kept = names[:MOST_MODULES]
        nodes = []
        for name in kept:
            node = self._nodes.get(name) or Node(name, type(parts[name]).__name__, 0, not list(parts[name].children()))
            node.parameters = sum(one.numel() for one in parts[name].parameters() if not is_lazy(one))
            node.sources.sort(key=lambda source: order.get(source, 0))
            nodes.append(node)
        return Graph(nodes, len(names) - len(kept))

    def _see(self, frame: FrameType, event: str, value: Any) -> None:
        if frame.f_code is not _CALL or event not in ("call", "return"):
            return
        try:
            found = frame.f_locals
            name = self._names.get(id(found["self"]))
            if name is None:
                return
            if event == "call":
                self._enter(name, found["self"], (found["args"], found["kwargs"]))
            else:
                self._leave(name, value)
                if self._only_first and not name:
                    sys.setprofile(None)
        except Exception as error:  # reported by whoever looks: it must not end a training
            self.error = error
            sys.setprofile(None)

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        node = self._nodes.get(name)
        if node is None:
            node = Node(name, type(module).__name__, 0, not list(module.children()), inputs=_shapes(inputs))
            self._nodes[name] = node
        node.calls += 1
        node.sources += sorted(self._origins.of(inputs) - {*node.sources})

    def _leave(self, name: str, output: Any) -> None:
        node = self._nodes[name]
        node.outputs = node.outputs or _shapes(output)
        if node.is_leaf:
            self._origins.mark(output, frozenset((name or INPUT,)))


class GradientOrigins:
    """Knows from which leaves tensors come as far as autograd does, or the very tensor was passed on.

    Args:
        inputs: The model's input.
    """

    def __init__(self, inputs: Any) -> None:
        self._tensors: dict[int, tuple[weakref.ref[Tensor], frozenset[str]]] = {}
        self._known: dict[int, tuple[Any, frozenset[str]]] = {}  # the function is held, so that its id is its own
        self.mark(inputs, frozenset((INPUT,)))

    def of(self, value: Any) -> frozenset[str]:
        """Return the leaves that the tensors in a value come from."""
        return _NONE.union(*map(self._of_tensor, tensors_of(value)))

    def mark(self, value: Any, origins: frozenset[str]) -> None:
        """Record where the tensors in a value come from."""
        for one in tensors_of(value):
            self._tensors[id(one)] = weakref.ref(one), origins
            if (function := one.grad_fn) is not None:
                self._known[id(function)] = function, origins

    def _of_tensor(self, tensor: Tensor) -> frozenset[str]:
        for one in (tensor, tensor._base):
            found = self._tensors.get(id(one))
            if found is not None and found[0]() is one:
                return found[1]
        return _NONE if tensor.grad_fn is None else self._of_function(tensor.grad_fn)

    def _of_function(self, function: Any) -> frozenset[str]:
        """Return the leaves before a function of autograd, each function of which is looked at once."""
        pending = [function]
        while pending:
            one = pending[-1]
            if id(one) in self._known:
                pending.pop()
                continue
            if len(self._known) > _MOST_FUNCTIONS:
                return _NONE
            before = [] if one.name() == _UNKNOWN else [past for past, _ in one.next_functions if past is not None]
            missing = [past for past in before if id(past) not in self._known]
            if missing:
                pending += missing
            else:
                self._known[id(one)] = one, _NONE.union(*(self._known[id(past)][1] for past in before))
                pending.pop()
        return self._known[id(function)][1]


def graph_without_calls(model: nn.Module, reason: str) -> Graph:
    """Return the modules of a model whose calls are not seen, for a reason."""
    graph = ModuleCalls(model, GradientOrigins(())).graph()
    graph.unseen = reason
    return graph


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


def _shapes(value: Any) -> list[tuple[int, ...]]:
    return [tuple(int(size) for size in one.shape) for one in tensors_of(value)]
