"""A graph of the Neuromorphic Intermediate Representation (Pedersen et al., 2024) as a model.

Its differential equations are solved with Euler's forward method, one step of ``dt`` seconds per time step of the
input. A spike has the surrogate gradient of ``snntorch``'s arc tangent. Weights are parameters, time constants and
thresholds are buffers.

Shapes: B batch, S time steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_positive, check_sizes
from .spiking import surrogate

_DT = 1e-4  # seconds, as the exporters of the libraries have it
_EXTRA = "pip install 'darkit[snn]'"


@dataclass
class NIRGraphConfig:
    """Which graph a `NIRGraph` is.

    Raises:
        ValueError: A number is out of range.
    """

    path: str = ""
    """A ``.nir`` file."""
    time_steps: int = 10
    """Time steps for which an input without time is presented."""
    dt: float | None = None
    """Seconds per time step, above 0; None takes what the file says, or else 1e-4."""

    def __post_init__(self) -> None:
        check_sizes(self, "time_steps")
        if self.dt is not None:
            check_positive(self, "dt")


def nir() -> Any:
    """Import ``nir``. Raises `ImportError` with the command that installs it."""
    try:
        import nir
    except ImportError as error:
        raise ImportError(f"NIR graphs need nir: {_EXTRA}.") from error
    return nir


class NIRGraph(nn.Module):
    """The model. Its output is that of the graph, averaged over time.

    Raises:
        ImportError: ``nir`` or ``snntorch`` is not installed.
        ValueError: The file cannot be read, or its graph has loops, several inputs or outputs, or an unknown
            node.
    """

    def __init__(self, config: NIRGraphConfig) -> None:
        super().__init__()
        self.config = config
        graph = _read(config.path)
        self.order, self.sources = _sorted(graph)
        dt = config.dt or _number(graph.metadata.get("dt")) or _DT
        self.keys = _keys(self.order)
        self.nodes = nn.ModuleDict({self.keys[name]: make_node(name, graph.nodes[name], dt) for name in self.order})
        (start,) = [name for name in self.order if not self.sources[name]]
        self.dimensions = len(next(iter(graph.nodes[start].input_type.values())))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mean output over time of inputs (B, S, ...), or of (B, ...) presented for some time steps."""
        if inputs.ndim <= self.dimensions + 1:
            inputs = inputs[:, None].expand(-1, self.config.time_steps, *inputs.shape[1:])
        return self.run(inputs.transpose(0, 1)).mean(0)

    def run(self, inputs: Tensor, only: str | None = None) -> Tensor:
        """Return the outputs (S, B, ...) of inputs (S, B, ...), of the whole graph or of one node alone."""
        order = self.order if only is None else [only]
        states: dict[str, Any] = {}
        outputs = []
        for step in inputs.unbind():
            found: dict[str, Tensor] = {}
            for name in order:
                given = [found[source] for source in self.sources[name]] if only is None else []
                entering = sum(given[1:], given[0]) if given else step
                found[name], states[name] = self.nodes[self.keys[name]](entering, states.get(name))
            outputs.append(found[order[-1]])
        return torch.stack(outputs)


class _Plain(nn.Module):
    """A node without state."""

    def __init__(self, compute: Any, weight: Any = None, bias: Any = None) -> None:
        super().__init__()
        self.compute = compute
        self.weight = None if weight is None else nn.Parameter(_tensor(weight))
        self.bias = None if bias is None else nn.Parameter(_tensor(bias))

    def forward(self, inputs: Tensor, state: None) -> tuple[Tensor, None]:
        weights = [value for value in (self.weight, self.bias) if value is not None]
        return self.compute(inputs, *weights), None


class _Dynamics(nn.Module):
    """A node with a potential, and with a current if it has a synaptic time constant.

    v += dt / tau (v_leak - v + r I), without a time constant v += dt r I; a spike where v > threshold sets v to
    v_reset. Before that, the current I += dt / tau_syn (w_in input - I).
    """

    def __init__(self, node: Any, dt: float) -> None:
        super().__init__()
        tau = getattr(node, "tau_mem", getattr(node, "tau", None))
        shape = node.r.shape
        self.register_buffer("rate", _tensor(dt / tau) if tau is not None else torch.full(shape, dt))
        self.register_buffer("resistance", _tensor(node.r))
        self.leaks = tau is not None
        self.register_buffer("rest", _tensor(node.v_leak) if self.leaks else torch.zeros(shape))
        self.has_current = hasattr(node, "tau_syn")
        if self.has_current:
            self.register_buffer("decay", _tensor(dt / node.tau_syn))
            self.register_buffer("gain", _tensor(node.w_in))
        self.fires = hasattr(node, "v_threshold")
        if self.fires:
            self.register_buffer("threshold", _tensor(node.v_threshold))
            self.register_buffer("reset", _tensor(node.v_reset))
            self.spike = surrogate("atan")

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        here: Any = self
        potential, current = state if state is not None else (here.rest.expand_as(inputs), torch.zeros_like(inputs))
        if self.has_current:
            current = current + here.decay * (here.gain * inputs - current)
            inputs = current
        pull = here.rest - potential if self.leaks else 0
        potential = potential + here.rate * (pull + here.resistance * inputs)
        if not self.fires:
            return potential, (potential, current)
        spikes = self.spike(potential - here.threshold)
        fired = spikes.detach()
        return spikes, (potential * (1 - fired) + here.reset * fired, current)


class _Firing(_Dynamics):
    """Such a node with a threshold; the others return their potential."""

    spike_time_axis = None
    """A call is one time step, for whatever measures spikes."""


def make_node(name: str, node: Any, dt: float) -> nn.Module:
    """Return a node of a graph as a module of an input and a state. Raises `ValueError` for an unknown one."""
    kind = type(node).__name__
    if kind in ("Input", "Output"):
        return _Plain(lambda x: x)
    if kind in ("Linear", "Affine"):
        return _Plain(F.linear, node.weight, getattr(node, "bias", None))
    if kind in ("Conv1d", "Conv2d"):
        call = F.conv1d if kind == "Conv1d" else F.conv2d
        place = {"stride": _whole(node.stride), "padding": _whole(node.padding), "dilation": _whole(node.dilation)}
        return _Plain(lambda x, w, b: call(x, w, b, groups=int(node.groups), **place), node.weight, node.bias)
    if kind in ("AvgPool2d", "SumPool2d"):
        size, stride, padding = (_whole(value) for value in (node.kernel_size, node.stride, node.padding))
        divisor = 1 if kind == "SumPool2d" else None
        return _Plain(lambda x: F.avg_pool2d(x, size, stride, padding, divisor_override=divisor))
    if kind == "Flatten":
        first, last = int(node.start_dim), int(node.end_dim)
        return _Plain(lambda x: x.flatten(first + 1 if first >= 0 else first, last + 1 if last >= 0 else last))
    if kind == "Scale":
        return _Plain(lambda x, scale: x * scale, node.scale)
    if kind in ("LIF", "CubaLIF", "IF"):
        return _Firing(node, dt)
    if kind in ("LI", "CubaLI"):
        return _Dynamics(node, dt)
    raise ValueError(f"The node {name!r} of the graph is a {kind}, which is not supported.")


def _read(path: str) -> Any:
    if not isinstance(path, str) or not Path(path).is_file():
        raise ValueError(f"path must be a .nir file, not {path!r}.")
    try:
        return nir().read(path, type_check=False)
    except ImportError:
        raise
    except Exception as error:  # of h5py and nir
        raise ValueError(f"{path} is no NIR graph ({type(error).__name__}: {error}).") from error


def _sorted(graph: Any) -> tuple[list[str], dict[str, list[str]]]:
    """Return the names of the nodes in the order of their computation, and the sources of each."""
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in dict.fromkeys(map(tuple, graph.edges)):  # edges are a set
        if source not in sources or target not in sources:
            raise ValueError(f"The graph has an edge from {source!r} to {target!r}, but no such nodes.")
        sources[target].append(source)
    order = list(_in_order(sources))
    ends = [name for name in order if not any(name in given for given in sources.values())]
    starts = [name for name in order if not sources[name]]
    if len(starts) != 1 or len(ends) != 1:
        raise ValueError(f"The graph must have one input and one output, not {len(starts)} and {len(ends)}.")
    return [*(name for name in order if name != ends[0]), ends[0]], sources


def _in_order(sources: Mapping[str, list[str]]) -> Iterator[str]:
    left = dict(sources)
    while left:
        ready = [name for name, given in left.items() if not any(source in left for source in given)]
        if not ready:
            raise ValueError(f"The graph has a loop through {', '.join(sorted(left))}, which is not supported.")
        for name in ready:
            del left[name]
            yield name


def _keys(names: Sequence[str]) -> dict[str, str]:
    """Return for each name another one that a part of a module may have."""
    found: dict[str, str] = {}
    for name in names:
        key = f"node_{name}".replace(".", "_")
        while key in found.values():
            key += "_"
        found[name] = key
    return found


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32).clone()


def _number(value: Any) -> float | None:
    return float(value) if value is not None else None


def _whole(value: Any) -> Any:
    """Return whole numbers, or text such as ``same``, as torch's functions take them."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    found = torch.as_tensor(value).flatten().tolist()
    return tuple(int(one) for one in found) if len(found) > 1 else int(found[0])
