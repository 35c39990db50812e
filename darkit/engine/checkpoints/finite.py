"""Whether weights are finite: looked at in the copy that is saved, by the thread that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.checkpoints.priority import Beside
from darkit.engine.checkpoints.weights import bare

_PIECE = 2**20  # elements


def is_finite(tensor: Tensor) -> bool:
    """Return whether every element is finite, in one pass without a temporary copy."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    if values.layout is not torch.strided or values.dtype.itemsize < 2:  # no extremes of sparse tensors and bytes
        return bool(torch.isfinite(values.to_dense().float()).all())
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(values))  # both are NaN if any element is


def trained_names(module: nn.Module) -> list[str]:
    """Return the names of the trained weights, which are their keys in a checkpoint."""
    return [name for name, one in bare(module).named_parameters() if one.requires_grad]


def saved_weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights in a checkpoint with which a training resumes."""
    weights: Mapping[str, Any] = content["raw_state_dict"] if "raw_state_dict" in content else content["state_dict"]
    return weights


def not_finite(names: Iterable[str], weights: Mapping[str, Any]) -> str:
    """Return the first of the names whose weight is not finite, or empty text.

    In a thread that works beside a training, this gives way to it.
    """
    found: list[str] = []

    def look(pieces: list[tuple[str, Tensor]]) -> None:
        found.extend(name for name, values in pieces if not is_finite(values))

    beside = Beside(1)
    try:
        for pieces in _in_pieces(names, weights):
            beside(look, pieces)
            if found:
                return found[0]
    finally:
        beside.close()
    return ""


def _in_pieces(names: Iterable[str], weights: Mapping[str, Any]) -> Iterator[list[tuple[str, Tensor]]]:
    """Yield weights, or parts of large ones, in lists that take about a millisecond to look at."""
    pieces: list[tuple[str, Tensor]] = []
    size = 0
    for name in names:
        values: Tensor = weights[name].detach()
        is_flat = values.layout is torch.strided and values.is_contiguous()
        for part in torch.split(values.view(-1), _PIECE) if is_flat and values.numel() > _PIECE else (values,):
            pieces.append((name, part))
            size += part.numel()
            if size >= _PIECE:
                yield pieces
                pieces, size = [], 0
    if pieces:
        yield pieces
