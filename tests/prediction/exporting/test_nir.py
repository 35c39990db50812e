"""NIR graphs: written from models of each library, run back, imported as a model, and refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy
import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import darkit
from darkit.cli.main import main
from darkit.core import Predicter
from darkit.models.csnn import CSNN, CSNNConfig
from darkit.models.nirgraph import NIRGraph, NIRGraphConfig
from tests.cli.parts import done, refused
from tests.engine.spiking import tutorials

pytestmark = pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")  # modules as arguments


class Stepped(nn.Module):
    """A chain of modules, called once for each time step."""

    def __init__(self, *modules: nn.Module, steps: int = 7) -> None:
        super().__init__()
        self.net, self.steps = nn.Sequential(*modules), steps

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self.net(x) for _ in range(self.steps)]
        return torch.stack([one[0] if isinstance(one, tuple) else one for one in outputs]).mean(0)


def leaky(**settings: Any) -> nn.Module:
    return snntorch.Leaky(**{"beta": 0.9, "reset_mechanism": "zero", "init_hidden": True, **settings})


def of_snntorch() -> nn.Module:
    first = leaky(beta=torch.linspace(0.1, 0.9, 9), threshold=0.4)
    return Stepped(nn.Linear(12, 9), first, nn.Dropout(), nn.Linear(9, 6), leaky(threshold=0.1, output=True))


def of_snntorch_pictures() -> nn.Module:
    layers = (nn.Conv2d(1, 3, 3, stride=2, padding=1), leaky(threshold=0.2), nn.AvgPool2d(2), nn.Flatten())
    return Stepped(*layers, nn.Linear(12, 3, bias=False))


def of_spikingjelly() -> nn.Module:
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import neuron

    neurons = neuron.LIFNode(2.0, v_threshold=0.3), neuron.ParametricLIFNode(3.0, decay_input=False), neuron.IFNode()
    return Stepped(nn.Linear(12, 9), neurons[0], nn.Linear(9, 8), neurons[1], nn.Linear(8, 3), neurons[2])


def of_spikingjelly_over_time() -> nn.Module:
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional, layer, neuron

    class Over(nn.Module):
        def __init__(self, steps: int = 5) -> None:
            super().__init__()
            self.steps = steps
            self.net = nn.Sequential(layer.Conv2d(1, 2, 3), neuron.IFNode(), layer.Flatten(), layer.Linear(72, 3))
            functional.set_step_mode(self, "m")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x[None].expand(self.steps, *x.shape)).mean(0)

    return Over()


def of_norse() -> nn.Module:
    norse = pytest.importorskip("norse.torch")

    class Norse(nn.Module):
        def __init__(self, steps: int = 30) -> None:
            super().__init__()
            self.steps = steps
            self.first, self.box = nn.Linear(12, 9), norse.LIFBoxCell()
            self.second, self.lif = nn.Linear(9, 5), norse.LIFCell()

        def forward(self, x: Tensor) -> Tensor:
            state = other = None
            outputs = []
            for _ in range(self.steps):
                spikes, state = self.box(self.first(40 * x), state)
                spikes, other = self.lif(self.second(spikes), other)
                outputs.append(spikes)
            return torch.stack(outputs).mean(0)

    return Norse()


MODELS: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "snntorch": (of_snntorch, tutorials.currents(), "input Affine LIF Affine LIF output"),
    "snntorch pictures": (
        of_snntorch_pictures,
        tutorials.pictures(),
        "input Conv2d LIF AvgPool2d Flatten Linear output",
    ),
    "spikingjelly": (of_spikingjelly, tutorials.currents(), "input Affine LIF Affine LIF Affine IF output"),
    "spikingjelly over time": (
        of_spikingjelly_over_time,
        tutorials.pictures(),
        "input Conv2d IF Flatten Affine output",
    ),
    "norse": (of_norse, tutorials.currents(), "input Affine LIF Affine CubaLIF output"),
    "csnn": (
        lambda: CSNN(CSNNConfig(size=8, channels=(4,), output_size=3)),
        tutorials.movies(),
        "input Conv2d LIF Flatten Affine output",
    ),
}


def squared(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs, target)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_becomes_a_graph_that_is_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, data, kinds = MODELS[name]
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = make()
    settings: dict[str, Any] = {"device": "cpu", "batch_size": 8, "max_step": 2, "tensorboard": False}
    darkit.fit(model, data, loss=squared, name="x", **settings)
    monkeypatch.setattr(Predicter, "get_model", classmethod(lambda cls, *arguments: model))
    said = done(capsys, "export", "x", "--format", "nir")
    assert "nodes that give the model's output at all" in said
    assert said.endswith("to x.nir.\n")
    graph = nir.read("x.nir")
    order = [type(node).__name__ if key not in ("input", "output") else key for key, node in graph.nodes.items()]
    assert sorted(order) == sorted(kinds.split())
    steps = getattr(model, "steps", 6)
    rebuilt = NIRGraph(NIRGraphConfig(path="x.nir", time_steps=steps))
    x = data[0][:6]
    if name == "norse":
        return  # the factor before its first layer is no part of the graph
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(x), model.eval()(x), rtol=1e-3, atol=1e-4)


class Adding(nn.Module):
    """A function between two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif, self.second = nn.Linear(12, 12), leaky(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.lif(self.first(x)) + x)


class Named(nn.Module):
    """Its parts are called as the ends of a graph, and two as one part of a module may be."""

    def __init__(self, steps: int = 5) -> None:
        super().__init__()
        self.steps = steps
        self.input, self.a = nn.Linear(12, 9), nn.ModuleDict({"b": leaky(threshold=0.2)})
        self.a_b, self.output = nn.Linear(9, 3), leaky(threshold=1e9)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.output(self.a_b(self.a["b"](self.input(x)))) for _ in range(self.steps)]).mean(0)


def test_the_parts_of_a_model_may_have_any_names_and_what_never_fires_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Named()
    darkit.fit(model, tutorials.currents(), loss=squared, name="x", device="cpu", max_step=1, tensorboard=False)
    monkeypatch.setattr(Predicter, "get_model", classmethod(lambda cls, *arguments: model))
    assert "(nothing fires in output here, so its constants are not compared)" in done(
        capsys, "export", "x", "--format", "nir"
    )
    graph = nir.read("x.nir")
    assert list(graph.nodes) == ["a.b", "a_b", "input", "input_", "output", "output_"]
    rebuilt = NIRGraph(NIRGraphConfig(path="x.nir"))
    torch.testing.assert_close(rebuilt.nodes[rebuilt.keys["a_b"]].weight, model.a_b.weight)
    names = ["input_", "input", "a.b", "a_b", "output", "output_"]
    twice = nir.NIRGraph(graph.nodes, [*pairwise(names), *pairwise(names)], type_check=False)
    nir.write("twice.nir", twice)
    x = 3 * torch.rand(4, 12)
    assert NIRGraph(NIRGraphConfig(path="twice.nir"))(x).equal(rebuilt(x)), "edges are a set"
    nir.write("unknown.nir", nir.NIRGraph(graph.nodes, [*pairwise(names), ("none", "a_b")], type_check=False))
    with pytest.raises(ValueError, match="an edge from 'none' to 'a_b', but no such nodes"):
        NIRGraph(NIRGraphConfig(path="unknown.nir"))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "subtraction": (lambda: Stepped(nn.Linear(12, 3), leaky(reset_mechanism="subtract")), "use reset_mechanism='zero'"),
    "function": (Adding, "a function is before one of them"),
    "node": (
        lambda: Stepped(nn.Linear(12, 3), nn.Softmax(-1), leaky()),
        "net.1 is a Softmax, for which it has no node",
    ),
    "synapse": (
        lambda: Stepped(nn.Linear(12, 3), snntorch.Synaptic(alpha=0.7, beta=0.8, init_hidden=True)),
        "net.1 is a Synaptic, for which it has no node",
    ),
    "dense": (lambda: Stepped(nn.Linear(12, 3)), "it has no layer of spiking neurons"),
    "pool before silence": (
        lambda: Stepped(nn.Conv2d(1, 3, 3), nn.AvgPool2d(2, divisor_override=1), nn.Flatten(), leaky(threshold=1e9)),
        "differs in the output, by 0.75, of net.1",
    ),
    "no leak": (lambda: Stepped(nn.Linear(12, 3), leaky(beta=1.0)), "beta=1 does not leak"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_refused_in_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    model = make()
    data = tutorials.pictures() if "pool" in name else tutorials.currents()
    darkit.fit(model, data, loss=squared, name="x", device="cpu", max_step=1, tensorboard=False)
    monkeypatch.setattr(Predicter, "get_model", classmethod(lambda cls, *arguments: model))
    sentence = refused(capsys, "export", "x", "--format", "nir")
    assert sentence.startswith("x cannot be expressed in NIR: ")
    assert said in sentence
    assert not list(tmp_path.glob("*.nir*"))


def test_a_graph_is_a_model_that_trains_and_predicts_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = numpy.random.default_rng(0)
    ones = numpy.ones(8, numpy.float32)
    nodes = {
        "input": nir.Input({"input": numpy.array([2, 12, 12])}),
        "flat": nir.Flatten({"input": numpy.array([2, 12, 12])}, 0, -1),
        "weights": nir.Linear(generator.normal(0, 0.2, (8, 288)).astype("float32")),
        "neurons": nir.LIF(tau=ones * 5e-4, r=ones * 5, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones),
        "output": nir.Output({"output": numpy.array([8])}),
    }
    names = list(nodes)
    nir.write("theirs.nir", nir.NIRGraph(nodes, list(pairwise(names))))
    few = ("data.samples=64", "data.val_samples=16", "trainer.max_step=4")
    done(capsys, "train", "model=nirgraph", "model.config.path=theirs.nir", "name=theirs", *few)
    log = darkit.load("theirs").log()
    assert log["firing_rate_nodes.node_neurons"].drop_nulls()[-1] > 0
    assert Predicter.from_pretrained("theirs", "cpu").predict(torch.zeros(2, 10, 2, 12, 12)).shape == (2, 8)
    loop = [*pairwise(names), ("neurons", "weights")]
    nir.write("loop.nir", nir.NIRGraph(nodes, loop, type_check=False))
    with pytest.raises(ValueError, match=r"The graph has a loop through neurons, output, weights"):
        NIRGraph(NIRGraphConfig(path="loop.nir"))
    for path, said in (("", "must be a .nir file, not ''"), ("theirs.txt", "must be a .nir file, not 'theirs.txt'")):
        with pytest.raises(ValueError, match=said):
            NIRGraph(NIRGraphConfig(path=path))
    Path("theirs.txt").write_text("no graph")
    with pytest.raises(ValueError, match="is no NIR graph"):
        NIRGraph(NIRGraphConfig(path="theirs.txt"))
    assert main(["train", "model=nirgraph", "name=none"]) == 2
