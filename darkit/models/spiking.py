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
_SLOPE = 25.0  # of snntorch's sigmoid
Factor = float | Tensor  # a tensor without dimensions where it is learnt


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
    if name == "sigmoid":
        return _Sigmoid.apply
    return (found.straight_through_estimator if name == "straight_through" else getattr(found, name))()


class _Sigmoid(torch.autograd.Function):
    """``snntorch.surrogate.sigmoid()``, whose own gradient is NaN from 3.6 below the threshold: its exponential is."""

    @staticmethod
    def forward(ctx: Any, excess: Tensor) -> Tensor:
        ctx.save_for_backward(excess)
        return (excess > 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (excess,) = ctx.saved_tensors
        share = torch.sigmoid(_SLOPE * excess)
        return gradient * (_SLOPE * share * torch.sigmoid(-_SLOPE * excess))


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
    threshold, and S[t] = 1 where U[t] > threshold. In the backward pass, a spike has a surrogate gradient, by default
    that of an arc tangent (Fang et al., 2021), and the reset has none. Both passes loop over time steps without an
    autograd graph per step.

    Args:
        beta: Decay factor of the potential per step, from 0 to below 1.
        threshold: The potential at which a neuron fires.
        gradient: The surrogate gradient, one of `SURROGATES`.
        learn_beta: Whether ``beta`` is learnt, one value of all neurons; as in ``snntorch``, it works as 0 to 1.
        learn_threshold: Whether ``threshold`` is learnt, likewise.
    """

    spike_time_axis = 1
    """The axis of time in the spikes, for whatever measures them."""

    def __init__(
        self,
        beta: float,
        threshold: float,
        gradient: str = "atan",
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(float(beta))) if learn_beta else beta
        self.threshold = nn.Parameter(torch.tensor(float(threshold))) if learn_threshold else threshold
        self.surrogate = surrogate(gradient)

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
        beta = self.beta.clamp(0, 1) if isinstance(self.beta, Tensor) else self.beta
        if torch.compiler.is_exporting():
            return _leak(inputs, potential, beta, self.threshold)
        spikes, left = _Leak.apply(  # type: ignore[no-untyped-call]
            inputs, potential, beta, self.threshold, self.surrogate
        )
        return spikes, left


def leaky_over_time(config: Any) -> LeakyNeurons:
    """Return `LeakyNeurons` with the settings of a config that `leaky` takes."""
    return LeakyNeurons(
        config.beta,
        config.threshold,
        config.surrogate,
        learn_beta=config.learn_beta,
        learn_threshold=config.learn_threshold,
    )


class _Leak(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, potential: Tensor, beta: Factor, threshold: Factor, surrogate: Any
    ) -> tuple[Tensor, Tensor]:
        rows = inputs.transpose(0, 1).contiguous()  # a step is contiguous in memory
        above = torch.empty_like(rows)  # potentials, and at the end their excess over the threshold
        spikes = torch.empty_like(rows)
        in_arrays = has_own_backward(inputs)
        beta, threshold = (_constant(factor, inputs, in_arrays) for factor in (beta, threshold))
        left = (_run_arrays if in_arrays else _run_tensors)(rows, potential, beta, threshold, above, spikes)
        above.sub_(threshold)
        ctx.save_for_backward(above)
        ctx.beta, ctx.threshold, ctx.surrogate = beta, threshold, surrogate
        ctx.mark_non_differentiable(left)
        return spikes.transpose(0, 1), left

    @staticmethod
    def backward(ctx: Any, spikes: Tensor, left: Tensor) -> tuple[Tensor | None, ...]:
        (above,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = above.detach().requires_grad_()
            (rows,) = torch.autograd.grad(ctx.surrogate(leaf), leaf, spikes.transpose(0, 1).contiguous())
        _, _, learns_beta, learns_threshold, _ = ctx.needs_input_grad
        of_beta, of_threshold = None, -rows.sum() if learns_threshold else None
        steps = rows.unbind()
        for later, earlier in zip(reversed(steps[1:]), reversed(steps[:-1]), strict=True):
            _add(earlier, later, ctx.beta)
        if learns_beta:  # which scales the potential of the step before
            of_beta = (rows[1:] * (above[:-1] + ctx.threshold)).sum()
        if of_threshold is not None:  # which the resets subtract too
            of_threshold -= (rows[1:] * (above[:-1] > 0)).sum()
        return rows.transpose(0, 1), None, of_beta, of_threshold, None


def _constant(factor: Factor, inputs: Tensor, as_number: bool) -> Factor:
    """Return a learnt factor as it is now, as a number where no device has to be waited for; others unchanged."""
    if not isinstance(factor, Tensor):
        return factor
    return factor.item() if as_number else factor.detach().to(inputs.dtype, copy=True)


def _add(values: Tensor, others: Tensor, factor: Factor, sign: int = 1) -> Tensor:
    """Add a multiple of other values in place."""
    if isinstance(factor, Tensor):
        return values.addcmul_(others, factor, value=sign)
    return values.add_(others, alpha=sign * factor)


def _run_tensors(
    rows: Tensor, potential: Tensor, beta: Factor, threshold: Factor, above: Tensor, spikes: Tensor
) -> Tensor:
    """Run neurons over the steps of ``rows`` (T, B, C), fill in potentials and spikes, and return what is left."""
    for row, target, fired in zip(rows.unbind(), above.unbind(), spikes.unbind(), strict=True):
        torch.add(row, potential, out=target)
        torch.gt(target, threshold, out=fired)
        potential = _add(target * beta, fired, threshold, -1)
    return potential


def _run_arrays(
    rows: Tensor, potential: Tensor, beta: Factor, threshold: Factor, above: Tensor, spikes: Tensor
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


def _leak(inputs: Tensor, potential: Tensor, beta: Factor, threshold: Factor) -> tuple[Tensor, Tensor]:
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
