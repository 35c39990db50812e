"""The layers of spiking neurons in a module, found by their classes; no spiking library is imported.

Known are the neurons of snntorch, spikingjelly (2.x), norse and darkit's own models, and every module whose class has
an attribute ``spike_time_axis``: the axis of time in its output, or None if a call is one time step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_OWN = "spike_time_axis"
_SNNTORCH = ("SpikingNeuron", "LeakyParallel", "LeakyKernel")  # bases of its neurons
_NORSE = {"SNNCell": None, "SNNRecurrentCell": None, "SNN": 0, "SNNRecurrent": 0}  # its bases, and their axis of time

_NORSE_ALONE = {  # without such a base
    ("norse.torch.module.coba_lif", "CobaLIFCell"),
    ("norse.torch.module.lif_correlation", "LIFCorrelation"),
}


@dataclass(frozen=True)
class Neurons:
    """One layer of spiking neurons.

    Attributes:
        name: Its place in the model, such as ``blocks.0.lif``.
        module: The layer.
        library: Where its class is from: ``snntorch``, ``spikingjelly``, ``norse`` or empty.
        time_axis: The axis of time in what a call returns; None if a call is one time step. The batch is the first
            other axis.
    """

    name: str
    module: nn.Module
    library: str
    time_axis: int | None

    def spikes(self, output: Any) -> Tensor:
        """Return the spikes (time, batch, ...) of one call from its output."""
        found: Tensor = output[0] if isinstance(output, tuple | list) else output
        return found[None] if self.time_axis is None else found.movedim(self.time_axis, 0)

    def membrane(self, output: Any) -> Tensor | None:
        """Return the membrane potentials after one call, or None where the layer does not tell them.

        Of a call that takes all time steps they are those after the last one, unless the layer keeps all of them, as
        with spikingjelly's ``store_v_seq``.
        """
        if self.library == "snntorch":
            found = getattr(self.module, "mem", None)
        elif self.library == "spikingjelly":
            every = self.time_axis is not None and getattr(self.module, "store_v_seq", False)
            found = getattr(self.module, "v_seq" if every else "v", None)
        else:
            last = output[-1] if isinstance(output, tuple | list) and len(output) > 1 else None
            found = last if isinstance(last, Tensor) else getattr(last, "v", None)
        return found if isinstance(found, Tensor) and found.is_floating_point() and found.numel() else None


def find_neurons(model: nn.Module) -> list[Neurons]:
    """Return the layers of spiking neurons in a module, in the order of its parts."""
    return [Neurons(name or type(part).__name__, part, *kind) for name, part, kind in _known(model)]


def _known(model: nn.Module) -> Iterator[tuple[str, nn.Module, tuple[str, int | None]]]:
    for name, part in model.named_modules():
        kind = _kind(part)
        if kind is not None:
            yield name, part, kind


def _kind(part: nn.Module) -> tuple[str, int | None] | None:
    """Return the library and the axis of time of a layer of spiking neurons; None for any other module."""
    if hasattr(type(part), _OWN):
        return "", getattr(type(part), _OWN)
    names = {cls.__name__ for cls in type(part).__mro__}
    origins = [(cls.__module__, cls.__name__) for cls in type(part).__mro__]
    if any(where.startswith("snntorch._neurons") and name in _SNNTORCH for where, name in origins):
        if ("StateLeaky" in names and not part.output) or getattr(part, "use_q_projection", False):
            return None  # a call returns potentials or other real numbers
        return "snntorch", None if hasattr(part, "reset_mem") else 0
    if any(where.startswith("spikingjelly.activation_based.neuron") for where, _ in origins):
        if any("NonSpiking" in name for name in names):
            return None
        return "spikingjelly", 0 if getattr(part, "step_mode", "m") == "m" else None
    for where, name in origins:
        if (where, name) in _NORSE_ALONE:
            return "norse", None
        if where == "norse.torch.module.snn" and name in _NORSE:
            # leaky integrators have the same bases and no spikes
            return None if "leaky_integrator" in type(part).__module__ else ("norse", _NORSE[name])
    return None
