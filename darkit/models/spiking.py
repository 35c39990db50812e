"""Shared parts of the spiking models: leaky neurons, and layers that get their spikes.

Neurons and surrogate gradients are those of ``snntorch`` (the extra ``darkit[snn]``).

Shapes: B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor, nn

from .functions import has_own_backward

_EXTRA = "pip install 'darkit[snn]'"


def snntorch() -> Any:
    """Import ``snntorch``. Raises `ImportError` with the command that installs it."""
    try:
        import snntorch
        import snntorch.surrogate
    except ImportError as error:
        raise ImportError(f"Spiking models need snntorch: {_EXTRA}.") from error
    return snntorch


SURROGATES = ("atan", "fast_sigmoid", "sigmoid", "straight_through")
"""The surrogate gradients of a spike that the models let choose."""


def surrogate(name: str) -> Any:
    """Return a surrogate gradient of ``snntorch`` by its name in `SURROGATES`."""
    found = snntorch().surrogate
    return (found.straight_through_estimator if name == "straight_through" else getattr(found, name))()


def leaky(config: Any, **settings: Any) -> Any:
    """Return neurons of ``snntorch`` that a step at a time integrate, leak, fire and are set back to zero.

    Args:
        config: Has ``beta``, ``threshold``, ``surrogate``, ``learn_beta`` and ``learn_threshold``.
        **settings: Those of recurrent ones, ``snntorch.RLeaky``; without any it is ``snntorch.Leaky``.
    """
    kind = snntorch().RLeaky if settings else snntorch().Leaky
    return kind(
        beta=config.beta,
        threshold=config.threshold,
        spike_grad=surrogate(config.surrogate),
        learn_beta=config.learn_beta,
        learn_threshold=config.learn_threshold,
        reset_mechanism="zero",
        **settings,
    )


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

    spike_time_axis = 1
    """The axis of time in the spikes, for whatever measures them."""

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
        above = torch.empty_like(rows)  # potentials, and at the end their excess over the threshold
        spikes = torch.empty_like(rows)
        run = _run_arrays if has_own_backward(inputs) else _run_tensors
        left = run(rows, potential, beta, threshold, above, spikes)
        above.sub_(threshold)
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


def _run_tensors(
    rows: Tensor, potential: Tensor, beta: float, threshold: float, above: Tensor, spikes: Tensor
) -> Tensor:
    """Run neurons over the steps of ``rows`` (T, B, C), fill in potentials and spikes, and return what is left."""
    for row, target, fired in zip(rows.unbind(), above.unbind(), spikes.unbind(), strict=True):
        torch.add(row, potential, out=target)
        torch.gt(target, threshold, out=fired)
        potential = (target * beta).sub_(fired, alpha=threshold)
    return potential


def _run_arrays(
    rows: Tensor, potential: Tensor, beta: float, threshold: float, above: Tensor, spikes: Tensor
) -> Tensor:
    """Compute `_run_tensors` in NumPy, bit for bit: its calls take a third of the time that torch's do."""
    left = potential.detach().numpy().copy()
    spent = numpy.empty_like(left)
    for row, target, fired in zip(rows.numpy(), above.numpy(), spikes.numpy(), strict=True):
        numpy.add(row, left, out=target)
        numpy.greater(target, threshold, out=fired)
        numpy.multiply(target, beta, out=left)
        numpy.multiply(fired, threshold, out=spent)
        numpy.subtract(left, spent, out=left)
    return torch.from_numpy(left)


def _leak(inputs: Tensor, potential: Tensor, beta: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Compute `_Leak` without gradients, and without writing in place, which an exported program cannot repeat."""
    spikes = []
    for row in inputs.unbind(1):
        above = row + potential
        fired = (above - threshold > 0).to(row.dtype)
        potential = above * beta - fired * threshold
        spikes.append(fired)
    return torch.stack(spikes, 1), potential


class SpikeLinear(nn.Linear):
    """A linear layer whose inputs are weighted sums of spikes, with weights that do not depend on the sample.

    They are factors of the layer's own weights: an input that is not 0 costs an addition per output, as a spike does.
    """

    spike_inputs = True
    """Whether inputs that are not 0 count as spikes, for whatever counts operations."""
