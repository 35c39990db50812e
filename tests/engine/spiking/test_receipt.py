"""A receipt: rates, dead and saturated neurons, energy and rasters, compared with sums by hand."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy
import pytest
import snntorch
import torch
from snntorch._neurons.associative import AssociativeLeaky
from torch import Tensor, nn

from darkit.engine.spiking.neurons import find_neurons
from darkit.engine.spiking.receipt import EnergyCosts, measure
from darkit.errors import ConfigError
from darkit.models.nirgraph import NIRGraph, NIRGraphConfig
from tests.engine.spiking import tutorials


def kinds(model: nn.Module) -> list[tuple[str, str, int | None]]:
    return [(found.name, found.library, found.time_axis) for found in find_neurons(model)]


class Own(nn.Module):
    """A user's neuron class that names its axis of time."""

    spike_time_axis = 1

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()


def test_neurons_are_found_by_their_classes() -> None:
    assert kinds(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []
    assert kinds(tutorials.FeedForward()) == [("lif1", "snntorch", None), ("lif2", "snntorch", None)]
    assert kinds(Own()) == [("Own", "", 1)]
    recurrent = snntorch.RLeaky(beta=0.9, linear_features=2)
    assert kinds(nn.Sequential(recurrent)) == [("0", "snntorch", None)], "not its weights"


def test_no_spiking_library_is_imported_to_look_for_neurons(python: str) -> None:
    script = """
import sys
from torch import nn
from darkit.engine.spiking.neurons import find_neurons
from darkit.engine.spiking.states import NeuronStates
model = nn.Sequential(nn.Linear(2, 2))
print(find_neurons(model), bool(NeuronStates(model)))
print(sorted({"snntorch", "spikingjelly", "norse", "nir"} & set(sys.modules)))
"""
    done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["[] False", "[]"]


def test_neurons_of_spikingjelly_and_norse_are_found() -> None:
    found = kinds(tutorials.csnn_of_spikingjelly())
    assert found == [(f"conv_fc.{place}", "spikingjelly", 0) for place in (2, 5, 8)]
    assert kinds(tutorials.lif_of_spikingjelly()) == [("layer.2", "spikingjelly", None)]
    assert kinds(tutorials.lif_of_norse()) == [("lif", "norse", None)], "a leaky integrator has no spikes"


def test_what_returns_no_spikes_is_not_counted() -> None:
    returns_potentials = [
        snntorch.StateLeaky(beta=0.9, channels=3, output=False),
        snntorch.LinearLeaky(beta=0.9, in_features=3, out_features=3, output=False),
        AssociativeLeaky.from_num_spiking_neurons(3, 4),
    ]
    assert [kinds(layer) for layer in returns_potentials] == [[], [], []]
    fires = [
        snntorch.StateLeaky(beta=0.9, channels=3),
        snntorch.LinearLeaky(beta=0.9, in_features=3, out_features=3),
        AssociativeLeaky.from_num_spiking_neurons(3, 4, use_q_projection=False),
    ]
    for layer in fires:
        _, receipt = measure(layer, lambda layer=layer: layer(torch.rand(5, 2, 3)))  # type: ignore[misc]
        assert receipt is not None
        assert (receipt.layers[0]["time steps"], receipt.samples) == (5, 2)


def test_a_leaky_integrator_of_a_graph_is_not_counted(tmp_path: Path) -> None:
    ones = numpy.ones(4)
    nodes = {
        "input": nir.Input({"input": numpy.array([4])}),
        "weights": nir.Linear(numpy.eye(4)),
        "lif": nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=0.1 * ones),
        "li": nir.LI(tau=ones, r=ones, v_leak=0 * ones),
        "output": nir.Output({"output": numpy.array([4])}),
    }
    nir.write(tmp_path / "graph.nir", nir.NIRGraph(nodes, list(pairwise(nodes))))
    model = NIRGraph(NIRGraphConfig(path=str(tmp_path / "graph.nir"), time_steps=6, dt=0.5))
    assert [found.name for found in find_neurons(model)] == ["nodes.node_lif"]
    with torch.no_grad():
        _, receipt = measure(model, lambda: model(torch.ones(2, 4)))
        fired = model.run(torch.ones(6, 2, 4), only="lif").mean()
    assert receipt is not None
    assert receipt.values(EnergyCosts())["firing_rate"] == pytest.approx(float(fired))


def test_neurons_of_norse_without_its_base_are_counted() -> None:
    from norse.torch.module.coba_lif import CobaLIFCell
    from norse.torch.module.lif_correlation import LIFCorrelation

    assert kinds(LIFCorrelation(3, 4)) == [("LIFCorrelation", "norse", None)]
    layer = CobaLIFCell(3, 4)
    _, receipt = measure(layer, lambda: layer(torch.ones(2, 3)))
    assert receipt is not None
    assert (receipt.layers[0]["neurons"], receipt.samples) == (4, 2)
    assert receipt.layers[0]["membrane mean"] is not None


class Scripted(nn.Module):
    """Returns its input as spikes."""

    spike_time_axis = 0

    def forward(self, spikes: Tensor) -> tuple[Tensor, Tensor]:
        return spikes, spikes[-1] * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neurons = Scripted()
        self.out = nn.Linear(4, 3, bias=False)

    def forward(self, spikes: Tensor) -> Tensor:
        return self.out(self.neurons(spikes)[0]).mean(0)


def test_rates_operations_and_energy_are_those_by_hand() -> None:
    spikes = torch.zeros(5, 2, 4)  # time, batch, neurons
    spikes[:, :, 0] = 1  # always
    spikes[2, 1, 1] = 1
    spikes[3, 0, 2] = 1
    model = Net()
    with torch.no_grad():
        output, receipt = measure(model, lambda: model(spikes), chosen=(1, 7))
    assert torch.equal(output, model(spikes))
    assert receipt is not None
    (row,) = receipt.layers
    assert (row["layer"], row["neurons"], row["time steps"], receipt.samples) == ("neurons", 4, 5, 2)
    assert row["firing rate"] == pytest.approx(12 / 40)
    assert (row["dead"], row["saturated"]) == (1 / 4, 1 / 4)
    assert row["membrane mean"] == pytest.approx(0.5)
    assert row["membrane std"] == pytest.approx(0.75**0.5)
    values = receipt.values(EnergyCosts())
    assert values["synops"] == 12 * 3 / 2
    assert values["synops_dense"] == 5 * 4 * 3
    assert values["energy_nj"] == pytest.approx(18 * 0.9 / 1000)
    assert values["energy_dense_nj"] == pytest.approx(60 * 4.6 / 1000)
    assert receipt.energy(EnergyCosts(1.0, 2.0)) == (36 / 1000, 60 / 1000)
    assert {key: value for key, value in values.items() if key.endswith("_neurons")} == {
        "firing_rate_neurons": row["firing rate"],
        "dead_neurons": 0.25,
        "saturated_neurons": 0.25,
    }
    assert list(receipt.rasters) == [1]
    assert torch.equal(torch.from_numpy(receipt.rasters[1]["neurons"]), spikes[:, 1] != 0)
    assert sorted(receipt.media(EnergyCosts())) == [
        *("spiking/energy", "spiking/layers", "spiking/raster/1", "spiking/synapses")
    ]


@pytest.mark.parametrize("keeps_all", [False, True])
def test_membranes_of_a_call_of_all_time_steps_are_those_that_the_layer_keeps(keeps_all: bool) -> None:
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import neuron

    layer = neuron.LIFNode(step_mode="m", store_v_seq=keeps_all)
    inputs = torch.rand(6, 2, 5, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        _, receipt = measure(layer, lambda: layer(inputs))
    assert receipt is not None
    wanted = (layer.v_seq if keeps_all else layer.v).double()
    assert wanted.numel() == (60 if keeps_all else 10)
    (row,) = receipt.layers
    assert row["membrane mean"] == pytest.approx(wanted.mean().item())
    assert row["membrane std"] == pytest.approx(wanted.std(unbiased=False).item())


def test_what_the_user_compiles_is_measured_and_compiled_afterwards() -> None:
    """A mode that sees operators would keep torch from compiling this code ever again."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph(*arguments)

        return run

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.neurons = nn.Linear(4, 4), Own()
            self.call = torch.compile(self.layer, backend=backend)

        def forward(self, x: Tensor) -> Tensor:
            return self.neurons(self.call(x))  # type: ignore[no-any-return]

    model, x = Inside(), torch.rand(5, 2, 4)
    with torch.no_grad():
        _, receipt = measure(model, lambda: model(x))
    assert receipt is not None
    assert receipt.values(EnergyCosts())["synops_dense"] == 2 * 4 * 4  # a sample has two time steps
    for _ in range(3):
        model(x)
    assert len(calls) == 3
    torch._dynamo.reset()


def test_a_model_without_spiking_neurons_has_no_receipt() -> None:
    model = nn.Linear(2, 2)
    assert measure(model, lambda: model(torch.ones(1, 2)))[1] is None


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), True, "4.6"])
def test_an_energy_is_a_number_from_zero(cost: Any) -> None:
    with pytest.raises(ConfigError, match="at least 0 pJ, not"):
        EnergyCosts(multiplied=cost)


class Shared(nn.Module):
    """One layer of neurons is used for several sizes; the first use has two rows of each sample in its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.spikes, self.few = Own(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.spikes(x.flatten(0, 1)[:, None])  # (batch of rows, time, N)
        out: Tensor = self.spikes(self.few(hidden.unflatten(0, (-1, 2)).flatten(2)))
        return out.mean(1)


def test_a_layer_that_is_used_for_several_sizes_counts_all_its_spikes() -> None:
    model, x = Shared(), torch.randn(4, 2, 6)
    seen: list[Tensor] = []
    model.spikes.register_forward_hook(lambda module, given, output: seen.append(output))
    _, receipt = measure(model, lambda: model(x), [1], samples=len(x))
    assert receipt is not None
    assert receipt.samples == 4
    (row,) = receipt.layers
    assert row["neurons"] == 6 + 2
    assert row["firing rate"] == pytest.approx(sum(float(one.sum()) for one in seen) / sum(one.numel() for one in seen))
    assert row["dead"] == sum(int((one.sum((0, 1)) == 0).sum()) for one in seen) / 8
    assert receipt.rasters[1]["spikes"].shape == (1, 6)
    assert receipt.values(EnergyCosts())["synops_dense"] == 2 * 6 * 2, "of one sample"
