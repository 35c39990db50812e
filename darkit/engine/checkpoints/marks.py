"""Whether a module's weights have changed since the end of a step, without a copy of them."""

from __future__ import annotations

from contextlib import suppress
from operator import attrgetter, getitem, methodcaller
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.steps.parts import is_dense

_VALUES = 64  # of each weight
_version = attrgetter("_version")
_address = methodcaller("data_ptr")


class WeightMarks:
    """Marks of a module's weights at the end of a step, which show a change since.

    torch counts changes in place, but not those of ``.data``, by which weights are clipped and momentum encoders are
    changed. So the addresses of the weights are kept too, and the bytes of a few values from the middle of each. A
    change in place through ``.data`` of other values alone leaves no trace.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._weights: list[Any] = []
        self._versions: list[int] = []
        self._addresses: list[int] = []
        self._find()

    def record(self) -> None:
        """Mark the weights as they are now; in a step of a small model even a loop over them counts."""
        try:
            self._weights = list(map(getitem, self._owners, self._keys))
            self._versions = list(map(_version, self._weights))
        except (KeyError, AttributeError):  # one was removed
            self._find()
            self._versions = list(map(_version, self._weights))
        self._sample()

    def changed(self) -> str:
        """Return the name of a weight that has changed since, or empty text."""
        now = [owner.get(key) for owner, key in zip(self._owners, self._keys, strict=True)]
        for name, before, weight, version in zip(self._names, self._weights, now, self._versions, strict=True):
            if weight is not before or weight._version != version:
                return name
        for index, address, place in zip(self._dense, self._addresses, self._places, strict=False):
            weight = self._weights[index]
            if weight.data_ptr() != address and not _same(weight, place):
                return self._names[index]
        for names, views, kept in self._samples:
            before = torch.split(kept, [len(view) for view in views])
            for name, view, values in zip(names, views, before, strict=True):
                if not torch.equal(view, values):
                    return name
        return ""

    def _find(self) -> None:
        """Find the weights, and those that have an address and values."""
        places = [
            (f"{prefix}.{key}" if prefix else key, part._parameters, key)
            for prefix, part in self._module.named_modules()
            for key, value in part._parameters.items()
            if value is not None and not value.is_inference()  # these count no changes, and allow none
        ]
        self._names = [name for name, _, _ in places]
        self._owners: list[dict[str, Any]] = [owner for _, owner, _ in places]
        self._keys = [key for _, _, key in places]
        self._weights = list(map(getitem, self._owners, self._keys))
        self._dense = [index for index, weight in enumerate(self._weights) if _is_dense(weight)]
        self._addresses = []
        self._places: list[Tensor] = []
        self._samples: list[tuple[list[str], list[Tensor], Tensor]] = []

    def _sample(self) -> None:
        """Copy some values, in one call for each device; views are made anew where a weight has moved in memory."""
        addresses = list(map(_address, map(self._weights.__getitem__, self._dense)))
        if addresses == self._addresses:
            for _, views, kept in self._samples:
                torch.cat(views, out=kept)
            return
        self._addresses = addresses
        self._places = [self._weights[index].detach() for index in self._dense]
        found: dict[torch.device, tuple[list[str], list[Tensor]]] = {}
        for index, place in zip(self._dense, self._places, strict=True):
            with suppress(RuntimeError, NotImplementedError, TypeError):  # of a class of its own: only its address
                view = _middle(place)
                names, views = found.setdefault(view.device, ([], []))
                names.append(self._names[index])
                views.append(view)
        self._samples = [(names, views, torch.cat(views)) for names, views in found.values()]


def _is_dense(weight: Tensor) -> bool:
    """Return whether a weight has an address and values."""
    if weight.layout is not torch.strided:
        return False
    try:
        return bool(weight.data_ptr())  # none without values, or of a class of its own
    except (RuntimeError, NotImplementedError, ValueError):
        return False


def _middle(weight: Tensor) -> Tensor:
    """Return the bytes of values from a weight's middle, as a view; the first ones may be padding, which stays zero."""
    view = weight.as_strided((weight.numel(),), (1,)) if is_dense(weight) else weight
    while view.dim() > 1:
        view = view[len(view) // 2]
    start = max(0, len(view) - _VALUES) // 2
    return view[start : start + _VALUES].view(torch.uint8)


def _same(weight: Tensor, place: Tensor) -> bool:
    """Return whether a weight has the values that its former place in memory still has."""
    alike = weight.shape == place.shape and weight.dtype == place.dtype and weight.device == place.device
    return alike and torch.equal(weight, place)
