"""Check that a rebuilt model is the same function as the trained one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from darkit.engine.description.likeness import are_alike, shape_of
from darkit.engine.device import floats_like, kept_generators, map_floats, move_to_device
from darkit.engine.metrics.undisturbed import evaluating

_LARGEST = 2**29  # bytes of a model that is built a second time
_NOISE = 0.5
_FACTOR = -7.0
_Call = tuple[tuple[Any, ...], dict[str, Any]]
Build = Callable[[], nn.Module]


class TooLargeError(Exception):
    """The model is too large to be built a second time in memory."""


def build_twin(build: Build, model: nn.Module, *, whole: bool) -> tuple[nn.Module, str]:
    """Build a second model without output, keeping the generators.

    Args:
        build: Builds it.
        model: The trained model; changes of the constructor to its classes are undone.
        whole: Whether values are needed, on the CPU; otherwise the meta device is used if possible.

    Returns:
        The twin, and the name of a class attribute that the constructor changed, or an empty string.

    Raises:
        TooLargeError: It needs more than half a gigabyte of memory.
    """
    before = [(cls, dict(vars(cls))) for cls in _own_classes(model)]
    twin: nn.Module | None = None
    try:
        with untouched():
            if not whole:
                with suppress(Exception), torch.device("meta"):  # a constructor may fail on the meta device
                    twin = build()
            if twin is None:
                if _bytes(model) > _LARGEST:
                    raise TooLargeError
                with torch.device("cpu"):
                    twin = build()
    finally:
        changed = [name for cls, attributes in before for name in _restore_class(cls, attributes)]
    return twin, next(iter(changed), "")


def _bytes(model: nn.Module) -> int:
    parts = (*model.parameters(), *model.buffers())
    return sum(part.numel() * part.element_size() for part in parts if not is_lazy(part))


def _own_classes(model: nn.Module) -> set[type]:
    """Return the classes of a model's modules that are not torch's."""
    found = {cls for module in model.modules() for cls in type(module).__mro__}
    return {cls for cls in found if cls is not object and cls.__module__.partition(".")[0] != "torch"}


def _restore_class(cls: type, attributes: dict[str, Any]) -> Iterator[str]:
    """Restore the attributes of a class, and yield the names of changed ones."""
    now = dict(vars(cls))
    for name in now.keys() - attributes.keys():
        delattr(cls, name)
        if not name.startswith("__"):
            yield name
    for name, value in attributes.items():
        if name not in now or now[name] is not value:
            setattr(cls, name, value)
            if name not in now or not are_alike(now[name], value):
                yield name


def other_layout(model: nn.Module, twin: nn.Module) -> str:
    """Return the first key at which the weights differ in shape, or an empty string."""
    wanted, found = (part.state_dict() for part in (model, twin))
    for key in (*wanted, *found):
        if key not in wanted or key not in found:
            return str(key)
        shapes = [shape_of(state[key]) for state in (wanted, found)]
        if shapes[0] != shapes[1] and None not in shapes:
            return str(key)
    return ""


def is_same_function(model: nn.Module, twin: nn.Module, sample: Callable[[], Any] | None) -> bool:
    """Return whether a twin on the CPU computes the same function with the same weights and buffers.

    This holds if all attributes are alike. Otherwise the outputs are compared in evaluation mode: for the batch that
    ``sample`` returns, with randomly changed weights (zero-initialised ones hide later layers), and for scaled inputs.
    The model and the generators stay unchanged.
    """
    if are_alike(model, twin):
        return True
    batch = sample() if sample is not None else None
    if batch is None:
        return False
    reference = next(iter(model.parameters()), None)
    if reference is not None:
        twin.to(reference.device)
        batch = floats_like(model, move_to_device(batch, reference.device))
    twin.eval()
    try:
        with untouched(), torch.no_grad():
            with _kept(model):
                call = next(_calls(model, batch), None)
            with _kept(model):
                return call is not None and _answers_alike(model, twin, call)
    except Exception:  # a model may raise anything
        return False


def _answers_alike(model: nn.Module, twin: nn.Module, call: _Call) -> bool:
    for noise, factor in ((0.0, 1.0), (_NOISE, 1.0), (_NOISE, _FACTOR)):
        if noise:
            _disturb(model, noise)
        twin.load_state_dict(model.state_dict(), strict=True)
        given, other = (_answer(part, call, factor) for part in (model, twin))
        if given is None and factor != 1:
            return other is None
        if given is None or other is None or not _close(given, other):
            return False
    return True


def _calls(model: nn.Module, batch: Any) -> Iterator[_Call]:
    """Yield possible arguments of a model: all of a batch, all but the target, the first part."""
    if isinstance(batch, Mapping):
        names = list(batch)
        ways: list[Any] = [
            ((), {name: batch[name] for name in names[:count]}) for count in (len(names), len(names) - 1, 1)
        ]
    elif isinstance(batch, tuple | list):
        ways = [(tuple(batch[:count]), {}) for count in (len(batch), len(batch) - 1, 1)]
    else:
        ways = [((batch,), {})]
    ways.append(((batch,), {}))
    for way in ways:
        if (way[0] or way[1]) and _answer(model, way, 1.0) is not None:
            yield way


def _answer(model: nn.Module, call: _Call, factor: float) -> list[Any] | None:
    """Return the tensors and numbers of a model's output, or None if it fails or has none."""
    with kept_generators(), suppress(Exception):  # the model may raise anything
        torch.manual_seed(0)
        positional, named = call if factor == 1 else map_floats(lambda tensor: tensor * factor, call)
        return list(_leaves(model(*positional, **named))) or None
    return None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Tensor):
        yield value.detach().clone()
    elif isinstance(value, bool | int | float):
        yield torch.tensor(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type):  # a custom output class
        yield from _leaves(vars(value))


def _close(one: list[Tensor], other: list[Tensor]) -> bool:
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        a, b = a.to_dense(), b.to_dense()
        if not (a.is_floating_point() or a.is_complex()):
            if not torch.equal(a, b):
                return False
            continue
        exact = torch.finfo(a.dtype).eps * 64
        largest = a.abs()[a.abs().isfinite()].max().item() if a.numel() and a.abs().isfinite().any() else 0.0
        if not torch.allclose(a, b, rtol=exact, atol=exact * largest, equal_nan=True):
            return False
    return True


def _disturb(model: nn.Module, noise: float) -> None:
    """Add noise to every parameter, also to zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and not is_lazy(parameter):
            inputs = parameter[0].numel() if parameter.ndim > 1 else 1
            scale = noise / max(1, inputs) ** 0.5
            moved = torch.randn(parameter.shape, generator=generator) * scale
            parameter.data.add_(moved.to(parameter.device, parameter.dtype))


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode for a block; restore parameters, buffers, modes and all attributes."""
    weights = [(parameter, parameter.data.clone()) for parameter in model.parameters() if not is_lazy(parameter)]
    owned = [(module, dict(vars(module))) for module in model.modules()]
    lists = [(value, value.copy()) for _, own in owned for value in own.values() if type(value) in (list, set)]
    try:
        with evaluating(model):
            yield
    finally:
        for parameter, data in weights:
            parameter.data.copy_(data)
        for module, own in owned:
            for key in set(vars(module)) - set(own):
                del module.__dict__[key]
            module.__dict__.update(own)
        for value, copied in lists:
            value.clear()
            value.extend(copied) if isinstance(value, list) else value.update(copied)


@contextmanager
def untouched() -> Iterator[None]:
    """Silence a block's output and warnings, and restore the generators."""
    with kept_generators(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
