"""Modules as nodes of the Neuromorphic Intermediate Representation.

Where an implementation is Euler's forward method with a step of ``dt``, its decay per step gives the time constant:
U += dt / tau (v_leak - U + r X) is U <- beta U + X for tau = dt / (1 - beta), v_leak = 0 and r = tau / dt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from darkit.engine.spiking.neurons import Neurons

DT = 1e-4  # seconds, for neurons that count time in steps
Shape = tuple[int, ...]


class Unsupported(Exception):
    """Why a model cannot be expressed."""


def time_step(modules: Sequence[nn.Module]) -> float:
    """Return the seconds per time step: norse's ``dt``, or `DT`. Raises `Unsupported` if there are several."""
    timed: list[Any] = [module for module in modules if type(module).__module__.startswith("norse.")]
    found = {float(module.dt) for module in timed if hasattr(module, "dt")}
    if len(found) > 1:
        raise Unsupported(f"its neurons have different time steps, {', '.join(map(str, sorted(found)))} s")
    return next(iter(found), DT)


def make_node(name: str, module: nn.Module, neurons: Neurons | None, shape: Shape, output: Shape, dt: float) -> Any:
    """Return the node of a module.

    Args:
        name: Its place in the model.
        module: The module.
        neurons: What is known of it if it is a layer of neurons.
        shape: The shape of its input, without time and batch.
        output: The shape of its output, likewise.
        dt: Seconds per time step.

    Raises:
        Unsupported: NIR has no such node.
    """
    import nir

    if neurons is not None:
        makers = {"snntorch": _of_snntorch, "spikingjelly": _of_spikingjelly, "norse": _of_norse}
        made = makers[neurons.library](module, output, dt) if neurons.library in makers else None
        if made is not None:
            return made
    elif isinstance(module, nn.Linear):
        weight = _array(module.weight)
        return nir.Linear(weight) if module.bias is None else nir.Affine(weight, _array(module.bias))
    elif isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros":
        bias = module.bias if module.bias is not None else torch.zeros(module.out_channels)
        kind = nir.Conv2d if isinstance(module, nn.Conv2d) else nir.Conv1d
        place: list[Any] = [module.stride, module.padding, module.dilation]
        if kind is nir.Conv1d:
            place = [value if isinstance(value, str) else value[0] for value in place]
        size = shape[1:] if kind is nir.Conv2d else shape[1]
        return kind(size, _array(module.weight), *place, module.groups, _array(bias))
    elif isinstance(module, nn.Flatten) and module.end_dim == -1 and len(output) == 1:
        return nir.Flatten({"input": numpy.array(shape)}, 0, -1)
    elif isinstance(module, nn.AvgPool2d) and not module.ceil_mode and module.count_include_pad:
        size, stride, padding = (_pair(value) for value in (module.kernel_size, module.stride, module.padding))
        return nir.AvgPool2d(size, stride, padding)
    raise Unsupported(f"{name} is a {type(module).__name__}, for which it has no node")


def _of_snntorch(module: Any, shape: Shape, dt: float) -> Any:
    import nir

    kind = type(module).__name__
    if kind != "Leaky":
        return None
    if module.reset_mechanism != "zero":
        raise Unsupported(
            f"a {kind} with reset_mechanism={module.reset_mechanism!r} is set back otherwise than NIR does, which sets "
            "a potential to a value: use reset_mechanism='zero'"
        )
    if float(module.graded_spikes_factor) != 1 or module.inhibition or module.state_quant:
        raise Unsupported(f"a {kind} with graded spikes, inhibition or quantization has no node")
    beta = _full(module.beta.clamp(0, 1), shape)
    if (beta >= 1).any():
        raise Unsupported(f"a {kind} with beta=1 does not leak, so it has no time constant")
    tau, threshold, zero = dt / (1 - beta), _full(module.threshold, shape), numpy.zeros(shape, numpy.float32)
    return nir.LIF(tau=tau, r=tau / dt, v_leak=zero, v_threshold=threshold, v_reset=zero)


def _of_spikingjelly(module: Any, shape: Shape, dt: float) -> Any:
    import nir

    kind = type(module).__name__
    if kind not in ("IFNode", "LIFNode", "ParametricLIFNode"):
        return None
    if module.v_reset is None:
        raise Unsupported(
            f"a {kind} with v_reset=None is set back by subtraction, and NIR sets a potential to a value: give it one"
        )
    threshold, reset = _full(module.v_threshold, shape), _full(module.v_reset, shape)
    if kind == "IFNode":
        if module.v_reset != 0:
            raise Unsupported("an IFNode that begins at another potential than 0 has no node")
        return nir.IF(r=_full(1 / dt, shape), v_threshold=threshold, v_reset=reset)
    steps = module.tau if kind == "LIFNode" else 1 / torch.sigmoid(module.w)
    tau = dt * _full(steps, shape)
    gain = numpy.ones(shape, numpy.float32) if module.decay_input else tau / dt
    return nir.LIF(tau=tau, r=gain, v_leak=reset, v_threshold=threshold, v_reset=reset)


def _of_norse(module: Any, shape: Shape, dt: float) -> Any:
    import nir

    if type(module).__name__ not in ("LIFBoxCell", "LIFCell", "LIF"):
        return None
    p = module.p
    tau, rest = 1 / _full(p.tau_mem_inv, shape), _full(p.v_leak, shape)
    common = {"r": numpy.ones(shape, numpy.float32), "v_leak": rest, "v_threshold": _full(p.v_th, shape)}
    common["v_reset"] = _full(p.v_reset, shape)
    if type(module).__name__ == "LIFBoxCell":
        return nir.LIF(tau=tau, **common)
    synapse = 1 / _full(p.tau_syn_inv, shape)
    return nir.CubaLIF(tau_syn=synapse, tau_mem=tau, w_in=synapse / dt, **common)


def _array(value: Tensor) -> Any:
    return value.detach().cpu().numpy()


def _full(value: Any, shape: Shape) -> Any:
    """Return a value of all neurons, or of each, as an array of all."""
    return torch.as_tensor(value, dtype=torch.float32).detach().cpu().expand(shape).clone().numpy()


def _pair(value: Any) -> Any:
    return numpy.array(value if isinstance(value, tuple) else (value, value))
