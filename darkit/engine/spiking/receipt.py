"""The receipt of a spiking model: how often its neurons fire for a batch, and what the spikes cost and save."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor, nn

from darkit.engine.log.media import Image, Media, Table
from darkit.engine.spiking.neurons import Neurons, find_neurons
from darkit.engine.spiking.operations import Operations, counting
from darkit.errors import ConfigError
from darkit.runs.spiking import ENERGY, LAYERS, RASTER, SOURCE, SYNAPSES

Output = TypeVar("Output")
_MOST_ROWS = 64  # neurons of a layer in a raster
_LEAST_WIDTH, _HEIGHT = 480, 4  # pixels of a raster, and of a neuron in it
_GAP, _INK, _PAPER = 170, 0, 255  # grey values of a raster


@dataclass(frozen=True)
class EnergyCosts:
    """What operations cost, in picojoules.

    Attributes:
        multiplied: A multiplication with an addition (MAC).
        accumulated: An addition alone (AC).
        source: Where the numbers are from.
    """

    multiplied: float = 4.6
    accumulated: float = 0.9
    source: str = SOURCE

    def __post_init__(self) -> None:
        value: Any
        for value in (self.multiplied, self.accumulated):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"The energy of an operation must be a number of at least 0 pJ, not {value!r}.")


@dataclass
class _Layer:
    """What is known of one layer of neurons after a forward pass.

    Attributes:
        neurons: The layer.
        fired: How often each neuron fired (N), over samples and time steps, by N: a layer may be called with several.
        chances: How often each could have fired, likewise.
        samples: The numbers of samples of the calls.
        steps: Time steps.
        rows: The spikes (time, N) of each chosen sample, in pieces.
        potential: Sum, sum of squares and number of the membrane potentials.
    """

    neurons: Neurons
    fired: dict[int, Tensor] = field(default_factory=dict)
    chances: dict[int, int] = field(default_factory=dict)
    samples: set[int] = field(default_factory=set)
    steps: int = 0
    rows: dict[int, list[Tensor]] = field(default_factory=dict)
    potential: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def add(self, output: Any, chosen: Collection[int]) -> None:
        """Add the output of one call."""
        fired = self.neurons.spikes(output).detach() != 0
        fired = fired.flatten(2) if fired.ndim > 2 else fired.reshape(len(fired), -1, 1)  # (time, batch, N)
        steps, samples, size = fired.shape
        self.fired[size] = self.fired.get(size, 0) + fired.sum((0, 1))
        self.chances[size] = self.chances.get(size, 0) + steps * samples
        self.samples.add(samples)
        if size == next(iter(self.fired)):
            self.steps += steps
            self._draw(fired, chosen)
        membrane = self.neurons.membrane(output)
        if membrane is not None:
            values = membrane.detach().double() if membrane.device.type != "mps" else membrane.detach()
            found = (values.sum().item(), values.square().sum().item(), values.numel())
            self.potential = [before + more for before, more in zip(self.potential, found, strict=True)]

    def _draw(self, fired: Tensor, chosen: Collection[int]) -> None:
        """Keep the spikes of the chosen samples; of the first number of neurons, if there are several."""
        for sample in chosen:
            if sample < fired.shape[1]:
                self.rows.setdefault(sample, []).append(fired[:, sample, :: max(1, -(-fired.shape[2] // _MOST_ROWS))])

    def row(self) -> dict[str, Any]:
        """Return the layer's row in the table of layers."""
        fired = torch.cat([count.cpu().double() for count in self.fired.values()])
        chances = torch.cat([torch.full_like(count, self.chances[size]) for size, count in self.fired.items()])
        total, squares, count = self.potential
        mean = total / count if count else None
        return {
            "layer": self.neurons.name,
            "class": type(self.neurons.module).__name__,
            "neurons": fired.numel(),
            "time steps": self.steps,
            "firing rate": float(fired.sum() / chances.sum().clamp(min=1)),
            "dead": float((fired == 0).double().mean()),
            "saturated": float((fired == chances).double().mean()),
            "membrane mean": mean,
            "membrane std": max(0.0, squares / count - mean**2) ** 0.5 if mean is not None else None,
        }


@dataclass(frozen=True)
class Receipt:
    """What was measured for one batch.

    Attributes:
        samples: Samples of the batch.
        layers: The rows of the layers of neurons that ran: ``layer``, ``class``, ``neurons``, ``time steps``,
            ``firing rate`` (spikes per neuron and time step), ``dead`` and ``saturated`` (shares of neurons that fired
            never and always), and mean and standard deviation of the membrane potential.
        synapses: The operations of each module with weights, of the whole batch.
        rasters: Spikes (time, neurons) of each chosen sample by layer; of a large layer every n-th neuron.
    """

    samples: int
    layers: list[dict[str, Any]]
    synapses: Mapping[str, Operations]
    rasters: Mapping[int, Mapping[str, numpy.ndarray[Any, Any]]]

    def energy(self, costs: EnergyCosts) -> tuple[float, float]:
        """Return the energy per sample in nanojoules, of the model and of its dense twin."""
        multiplied, accumulated, dense = self._totals()
        spent = multiplied * costs.multiplied + accumulated * costs.accumulated
        return spent / 1000, dense * costs.multiplied / 1000

    def values(self, costs: EnergyCosts) -> dict[str, float]:
        """Return the columns of the log."""
        found: dict[str, float] = {}
        for row in self.layers:
            for name in ("firing rate", "dead", "saturated"):
                found[f"{name.replace(' ', '_')}_{row['layer']}"] = row[name]
        neurons = sum(row["neurons"] for row in self.layers)
        if neurons:
            found["firing_rate"] = sum(row["firing rate"] * row["neurons"] for row in self.layers) / neurons
        _, found["synops"], found["synops_dense"] = self._totals()
        found["energy_nj"], found["energy_dense_nj"] = self.energy(costs)
        return found

    def media(self, costs: EnergyCosts) -> dict[str, Media]:
        """Return the tables and rasters."""
        layers: list[list[Any]] = [list(row.values()) for row in self.layers]
        each = 1 / max(1, self.samples)
        synapses: list[list[Any]] = [
            [name or "(functions)", one.multiplied * each, one.accumulated * each, one.dense * each]
            for name, one in self.synapses.items()
        ]
        sizes = {row["layer"]: row["neurons"] for row in self.layers}
        multiplied, accumulated, dense = self._totals()
        spent, twin = self.energy(costs)
        energy: list[list[Any]] = [
            ["MAC", costs.multiplied, multiplied, dense],
            ["AC", costs.accumulated, accumulated, 0],
            ["energy in nJ", None, spent, twin],
        ]
        found: dict[str, Media] = {
            LAYERS: Table(list(self.layers[0]), layers, f"For {self.samples} samples."),
            SYNAPSES: Table(["module", "MAC", "AC", "dense MAC"], synapses, "Operations per sample."),
            ENERGY: Table(["operation", "pJ", "per sample", "dense twin"], energy, costs.source),
        }
        return found | {f"{RASTER}/{sample}": _picture(sample, rows, sizes) for sample, rows in self.rasters.items()}

    def _totals(self) -> tuple[float, float, float]:
        """Return MACs, ACs and the dense twin's MACs per sample."""
        found = self.synapses.values()
        each = max(1, self.samples)
        return (
            sum(one.multiplied for one in found) / each,
            sum(one.accumulated for one in found) / each,
            sum(one.dense for one in found) / each,
        )


def measure(
    model: nn.Module, forward: Callable[[], Output], chosen: Collection[int] = (), samples: int | None = None
) -> tuple[Output, Receipt | None]:
    """Measure a forward pass.

    Args:
        model: The model.
        forward: Runs it on a batch.
        chosen: The samples of the batch whose spikes are kept.
        samples: The samples of the batch. Where no layer gets so many, as when time comes first in the batch, or None,
            they are those of the first layer.

    Returns:
        What ``forward`` returns, and the receipt; None if no layer of spiking neurons ran.
    """
    layers = [_Layer(neurons) for neurons in find_neurons(model)]
    with _watched(layers, chosen), counting(model) as operations, _eager():
        output = forward()
    ran = [layer for layer in layers if layer.fired]
    if not ran:
        return output, None
    rasters = {
        sample: {
            layer.neurons.name: torch.cat(layer.rows[sample]).cpu().numpy() for layer in ran if sample in layer.rows
        }
        for sample in chosen
    }
    kept = {sample: rows for sample, rows in rasters.items() if rows}
    if not any(samples in layer.samples for layer in ran):
        samples = max(ran[0].samples)
    return output, Receipt(samples or 0, [layer.row() for layer in ran], operations, kept)


def _eager() -> AbstractContextManager[Any]:
    """Return a context in which compiled code, of which operators cannot be seen, runs module by module."""
    may_be_compiled = "torch._dynamo.eval_frame" in sys.modules  # slow to load, and all of ``torch.compile`` does
    return torch.compiler.set_stance("force_eager") if may_be_compiled else nullcontext()


@contextmanager
def _watched(layers: list[_Layer], chosen: Collection[int]) -> Iterator[None]:
    """Collect the outputs of the layers within the block."""

    def watch(layer: _Layer) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, arguments, output: layer.add(output, chosen)

    handles = [layer.neurons.module.register_forward_hook(watch(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _picture(sample: int, layers: Mapping[str, numpy.ndarray[Any, Any]], sizes: Mapping[str, int]) -> Image:
    """Draw the spikes of a sample: time to the right, the neurons of each layer below those of the one before."""
    width = max(rows.shape[0] for rows in layers.values())
    parts = []
    for rows in layers.values():
        part = numpy.full((rows.shape[1], width), _PAPER, numpy.uint8)
        part[:, : rows.shape[0]][rows.T] = _INK
        parts += [part, numpy.full((1, width), _GAP, numpy.uint8)]
    drawn = numpy.concatenate(parts[:-1]).repeat(_HEIGHT, 0).repeat(max(_HEIGHT, _LEAST_WIDTH // max(1, width)), 1)
    names = ", ".join(f"{name} ({rows.shape[1]} of {sizes[name]} neurons)" for name, rows in layers.items())
    return Image(drawn, f"Sample {sample}: a row is a neuron, a column a time step; from the top {names}."[:10_000])
