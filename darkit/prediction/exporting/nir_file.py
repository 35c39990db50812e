"""Models as graphs of the Neuromorphic Intermediate Representation, run back against the model: ``--format nir``.

A graph is a chain of modules, each of which gets exactly what the one before it returned, time step by time step. What
happens before the first one and after the last one, such as an average over time, is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from darkit.engine.metrics.undisturbed import undisturbed
from darkit.engine.spiking.neurons import Neurons, find_neurons
from darkit.engine.spiking.states import NeuronStates
from darkit.errors import ConfigError
from darkit.prediction.exporting.nir_nodes import Unsupported, make_node, time_step
from darkit.prediction.exporting.traced import Traced, trace
from darkit.runs import Run

_ROWS = 4
_APART = 1e-3  # relative difference of real outputs, and share of spikes that may differ by rounding
_PASSING = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode their output is their input


@dataclass
class _Link:
    """A module of the chain.

    Attributes:
        name: Its place in the model.
        module: The module.
        neurons: What is known of it if it is a layer of neurons.
        inputs: What it got at each call.
        outputs: What it returned at each call.
    """

    name: str
    module: nn.Module
    neurons: Neurons | None
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


def export_nir(run: Run, wanted: str | None, output: Path) -> str:
    """Write a ``.nir`` file.

    Raises:
        ConfigError: ``nir`` is missing, or the model cannot be expressed or is another one when it is run back.
    """
    if find_spec("nir") is None:
        raise ConfigError("--format nir needs nir: pip install 'darkit[snn]'.")
    traced = trace(run, wanted)
    try:
        chain = _chain(traced)
        said = _write(traced, chain, output)
    except Unsupported as error:
        raise ConfigError(f"{traced.name} cannot be expressed in NIR: {error}.") from error
    return f"{traced.name}, {said},"


def _chain(traced: Traced) -> list[_Link]:
    """Return the modules of the model in the order in which one feeds the next. Raises `Unsupported`."""
    model = traced.inference.model
    known = {found.module: found for found in find_neurons(model)}
    links: dict[nn.Module, _Link] = {}
    made: dict[int, tuple[Tensor, nn.Module]] = {}  # the tensors are held, so that their ids are their own
    before: dict[nn.Module, set[nn.Module | None]] = {}

    def watch(module: nn.Module, arguments: Any, returned: Any) -> None:
        given = next((one for one in arguments if isinstance(one, Tensor)), None)
        result = returned[0] if isinstance(returned, tuple | list) else returned
        if given is None or not isinstance(result, Tensor):
            return
        source = made[id(given)][1] if id(given) in made else None
        if isinstance(module, _PASSING):
            if source is not None:
                made[id(result)] = (result, source)
            return
        links[module].inputs.append(given.detach())
        links[module].outputs.append(result.detach())
        before.setdefault(module, set()).add(source)
        made[id(result)] = (result, module)

    handles = []
    for name, part in model.named_modules():
        inside = any(name.startswith(f"{other.name}.") for other in known.values())
        if part in known or not (list(part.children()) or inside):
            links[part] = _Link(name or type(part).__name__, part, known.get(part))
            handles.append(part.register_forward_hook(watch))
    try:
        with undisturbed(model), torch.no_grad():
            if states := NeuronStates(model):
                states.reset()
            traced.layout.call(traced.inference, traced.batch(_ROWS))
    finally:
        for handle in handles:
            handle.remove()
    return _in_order(links, before)


def _in_order(links: Mapping[nn.Module, _Link], before: Mapping[nn.Module, set[nn.Module | None]]) -> list[_Link]:
    following: dict[nn.Module | None, nn.Module] = {}
    for module, sources in before.items():
        name = links[module].name
        if len(sources) > 1:
            raise Unsupported(f"{name} is fed by different modules at different calls")
        (source,) = sources
        if source in following:
            other = links[following[source]].name
            what = links[source].name if source is not None else "the model's own code"
            raise Unsupported(f"{what} feeds both {other} and {name}, or a function is before one of them")
        following[source] = module
    chain: list[_Link] = []
    here: nn.Module | None = None
    while here in following:
        here = following[here]
        chain.append(links[here])
    if not chain or not any(link.neurons is not None for link in chain):
        raise Unsupported("it has no layer of spiking neurons")
    return chain


def _write(traced: Traced, chain: list[_Link], output: Path) -> str:
    import nir

    is_timed = any(link.neurons is not None and link.neurons.time_axis is not None for link in chain)
    for link in chain:  # from here on each is (time, batch, ...)
        link.inputs = [_over_time(link.inputs, is_timed)]
        link.outputs = [_over_time(link.outputs, is_timed)]
    dt = time_step([link.module for link in chain])
    shapes = [tuple(link.inputs[0].shape[2:]) for link in chain]
    start, end = (_free(name, [link.name for link in chain]) for name in ("input", "output"))
    nodes: dict[str, Any] = {start: nir.Input({"input": _shape(shapes[0])})}
    for link, shape in zip(chain, shapes, strict=True):
        nodes[link.name] = make_node(link.name, link.module, link.neurons, shape, tuple(link.outputs[0].shape[2:]), dt)
    nodes[end] = nir.Output({"output": _shape(tuple(chain[-1].outputs[0].shape[2:]))})
    names = list(nodes)
    edges = list(pairwise(names))
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": dt, **traced.facts})
    nir.write(str(output), graph)
    return _run_back(chain, output)


def _run_back(chain: list[_Link], path: Path) -> str:
    """Compare the file's graph with the model. Raises `Unsupported`."""
    models: Any = import_module("darkit.models.nirgraph")
    rebuilt = models.NIRGraph(models.NIRGraphConfig(path=str(path)))
    with torch.no_grad():
        for link in chain:  # a difference may be lost in later ones
            _compare(link, rebuilt.run(link.inputs[0], link.name))
        _compare(chain[-1], rebuilt.run(chain[0].inputs[0]))
    said = f"{len(chain)} nodes that give the model's output at all {len(chain[-1].outputs[0])} time steps"
    silent = [link.name for link in chain if link.neurons is not None and not link.outputs[0].any()]
    return said + (f" (nothing fires in {', '.join(silent)} here, so its constants are not compared)" if silent else "")


def _compare(link: _Link, found: Tensor) -> None:
    """Compare outputs with those of a module. Raises `Unsupported`."""
    wanted = link.outputs[0]
    if found.shape != wanted.shape:
        raise Unsupported(f"the output of {link.name} in the graph, run back against the model, has another shape")
    if link.neurons is not None:
        apart = float((found != wanted).double().mean())
    else:
        apart = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
    if not apart <= _APART:
        what = f"{apart:.1%} of the spikes" if link.neurons is not None else f"the output, by {apart:.2g},"
        raise Unsupported(f"the graph, run back against the model, differs in {what} of {link.name}")


def _free(name: str, taken: Sequence[str]) -> str:
    """Return a name that is not taken."""
    return name if name not in taken else _free(f"{name}_", taken)


def _over_time(calls: list[Tensor], is_timed: bool) -> Tensor:
    """Return what a module got or returned as (time, batch, ...)."""
    if is_timed:
        if len(calls) != 1:
            raise Unsupported("some of its layers get all time steps in one call, and are called more than once")
        return calls[0]
    if len({one.shape for one in calls}) != 1:
        raise Unsupported("the shapes change from one time step to the next")
    return torch.stack(calls)


def _shape(shape: tuple[int, ...]) -> Any:
    return numpy.array(shape)
