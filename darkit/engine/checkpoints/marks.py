"""Whether a module's weights have changed since the end of a step, without a copy of them."""

from __future__ import annotations

from operator import attrgetter, getitem
from typing import Any

import torch
from torch import Tensor, nn

_SAMPLED = 4  # frozen weights
_VALUES = 64  # of each
_version = attrgetter("_version")


class WeightMarks:
    """Marks of a module's weights at the end of a step, which show a change since.

    torch counts changes in place, but not those of ``.data``, by which many momentum encoders are changed. So the
    addresses of frozen weights are kept too, and a few values of the largest ones. A change of a trained weight's
    ``.data`` leaves no trace.

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
        if self._frozen:
            self._sample()

    def changed(self) -> str:
        """Return the name of a weight that has changed since, or empty text."""
        now = [owner.get(key) for owner, key in zip(self._owners, self._keys, strict=True)]
        for name, before, weight, version in zip(self._names, self._weights, now, self._versions, strict=True):
            if weight is not before or weight._version != version:
                return name
        for index, address in zip(self._frozen, self._addresses, strict=True):
            if self._weights[index].data_ptr() != address:
                return self._names[index]
        for index, view, kept in zip(self._frozen, self._views, self._kept, strict=False):
            if not torch.equal(view, kept):
                return self._names[index]
        return ""

    def _find(self) -> None:
        """Find the weights, and those that are frozen, the largest ones first."""
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
        frozen = [index for index, weight in enumerate(self._weights) if _is_frozen(weight)]
        self._frozen = sorted(frozen, key=lambda index: -self._weights[index].numel())
        self._addresses = []
        self._views: list[Tensor] = []
        self._kept: list[Tensor] = []

    def _sample(self) -> None:
        """Copy some frozen values; the views of them are made anew where a weight has another place in memory."""
        addresses = [self._weights[index].data_ptr() for index in self._frozen]
        if addresses == self._addresses:
            torch._foreach_copy_(self._kept, self._views)
            return
        self._addresses = addresses
        self._views = [_first_values(self._weights[index]) for index in self._frozen[:_SAMPLED]]
        self._kept = [view.clone() for view in self._views]


def _is_frozen(weight: Tensor) -> bool:
    """Return whether a weight is not trained, and has an address and values."""
    if weight.requires_grad or weight.layout is not torch.strided or not weight.dim():
        return False
    try:
        return bool(weight.data_ptr())  # none without values, or of a class of its own
    except (RuntimeError, NotImplementedError, ValueError):
        return False


def _first_values(weight: Tensor) -> Tensor:
    """Return a view of a weight's first values."""
    view = weight.detach()
    while view.dim() > 1:
        view = view[0]
    return view[:_VALUES]
