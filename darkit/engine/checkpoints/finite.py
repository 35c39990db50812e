"""Whether weights are finite: looked at in the copy that is saved, by the thread that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.checkpoints.weights import bare


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
    """Return the first of the names whose weight is not finite, or empty text."""
    return next((name for name in names if not is_finite(weights[name].detach())), "")
