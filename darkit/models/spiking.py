"""Shared parts of the spiking models: leaky neurons, and the synaptic operations that spikes save.

Neurons and surrogate gradients are those of ``snntorch`` (the extra ``darkit[snn]``).

Shapes: B batch, T time, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_EXTRA = "pip install 'darkit[snn]'"


def snntorch() -> Any:
    """Import ``snntorch``. Raises `ImportError` with the command that installs it."""
    try:
        import snntorch
        import snntorch.surrogate
    except ImportError as error:
        raise ImportError(f"Spiking models need snntorch: {_EXTRA}.") from error
    return snntorch


class LeakyNeurons(nn.Module):
    """Leaky integrate-and-fire neurons whose time is an axis: ``snntorch.Leaky`` in one call.

    As there, with reset by subtraction (Eshraghian et al., 2023, section 3): U[t] = beta U[t-1] + X[t] - S[t-1]
    threshold, and S[t] = 1 where U[t] > threshold. In the backward pass, a spike has the surrogate gradient of an arc
    tangent (Fang et al., 2021), and the reset has none. Both passes loop over time steps without an autograd graph per
    step.

    Args:
        beta: Decay factor of the potential per step, from 0 to below 1.
        threshold: The potential at which a neuron fires.
    """

    def __init__(self, beta: float, threshold: float) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold
        self.surrogate = snntorch().surrogate.atan()

    def forward(self, inputs: Tensor, potential: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the neurons over time.

        Args:
            inputs: The input currents (B, T, C).
            potential: The potential after the steps before (B, C), as returned; None is zero.

        Returns:
            Spikes (B, T, C), each 0 or 1, and the remaining potential (B, C), without gradient.
        """
        if potential is None:
            potential = inputs.new_zeros(inputs.shape[0], inputs.shape[2])
        if torch.compiler.is_exporting():
            return _leak(inputs, potential, self.beta, self.threshold)
        spikes, left = _Leak.apply(  # type: ignore[no-untyped-call]
            inputs, potential, self.beta, self.threshold, self.surrogate
        )
        return spikes, left


class _Leak(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, potential: Tensor, beta: float, threshold: float, surrogate: Any
    ) -> tuple[Tensor, Tensor]:
        rows = inputs.transpose(0, 1).contiguous()  # a step is contiguous in memory
        above = torch.empty_like(rows)  # potential over threshold
        left = potential  # carried over to the next step
        spikes = torch.empty_like(rows)
        for row, target, fired in zip(rows.unbind(), above.unbind(), spikes.unbind(), strict=True):
            torch.add(row, left, out=target)
            left = target * beta
            target.sub_(threshold)
            fired.copy_(target > 0)
            left.sub_(fired, alpha=threshold)
        ctx.save_for_backward(above)
        ctx.beta, ctx.surrogate = beta, surrogate
        ctx.mark_non_differentiable(left)
        return spikes.transpose(0, 1), left

    @staticmethod
    def backward(ctx: Any, spikes: Tensor, left: Tensor) -> tuple[Tensor | None, ...]:
        (above,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = above.detach().requires_grad_()
            (rows,) = torch.autograd.grad(ctx.surrogate(leaf), leaf, spikes.transpose(0, 1).contiguous())
        steps = rows.unbind()
        for later, earlier in zip(reversed(steps[1:]), reversed(steps[:-1]), strict=True):
            earlier.add_(later, alpha=ctx.beta)
        return rows.transpose(0, 1), None, None, None, None


def _leak(inputs: Tensor, potential: Tensor, beta: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Compute `_Leak` without gradients, and without writing in place, which an exported program cannot repeat."""
    spikes = []
    for row in inputs.unbind(1):
        above = row + potential
        fired = (above - threshold > 0).to(row.dtype)
        potential = above * beta - fired * threshold
        spikes.append(fired)
    return torch.stack(spikes, 1), potential


def share_saved(spiking: Sequence[tuple[Tensor, int]], dense: int) -> Tensor:
    """Return the fraction of a dense model's synaptic operations that the spikes save.

    A synapse without an input spike costs nothing, so a matrix with spikes as input costs its firing rate times its
    size (Merolla et al., 2014; Zhu et al., 2023, section 5.3); others cost their size.

    Args:
        spiking: For each matrix with spikes as input: the fraction of its inputs that are not 0, and its size.
        dense: The total size of all other matrices.

    Returns:
        1 - (sum of rate x size + dense) / (sum of size + dense), a tensor without dimensions.
    """
    whole = dense + sum(size for _, size in spiking)
    spent = dense + sum(rate * size for rate, size in spiking)
    return 1 - torch.as_tensor(spent) / whole
