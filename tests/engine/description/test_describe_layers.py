"""Layers of every kind are built again with their types, and go on exactly."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import snntorch
import torch
import torch.nn.functional as F
from snntorch import utils
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from darkit.core import Predicter
from darkit.engine.description.describe import describe_model
from darkit.errors import ReproductionWarning
from tests.engine.description.models import Enclosed, Sloped, X, Y, described, predicted_as_trained
from tests.engine.parts import train


def test_lazy_layers_are_built_again() -> None:
    class Lazy(nn.Module):
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.width = width
            self.layers = nn.Sequential(nn.LazyLinear(width), nn.Tanh(), nn.LazyLinear(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    model = Lazy()
    model(X)
    predicted_as_trained(model)


class Twice(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.layer = parametrizations.weight_norm(nn.Linear(4, width))
        self.out = parametrizations.spectral_norm(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x))


class Spiking(nn.Module):
    """Like snntorch's tutorials."""

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8),
            snntorch.Leaky(beta=beta, init_hidden=True),
            nn.Linear(8, 1),
            snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self.net)
        return torch.stack([self.net(x)[1] for _ in range(5)]).mean(0)


@pytest.mark.parametrize("make", [Twice, Spiking])
def test_parametrized_and_spiking_networks_are_built_again(make: Any) -> None:
    predicted_as_trained(make())


def test_the_leak_of_a_spiking_network_is_not_guessed() -> None:
    assert described(Spiking(beta=0.5)).kind == "arguments"  # a buffer that every checkpoint holds
    with torch.no_grad():
        again = Spiking()
        again.load_state_dict(Spiking(beta=0.5).state_dict())
        assert torch.equal(again.net[1].beta, torch.tensor(0.5))


SEQUENCES = {
    "the README's": lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)),
    "arguments": lambda: nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.LeakyReLU(0.7), nn.LayerNorm(6), nn.Linear(6, 1)
    ),
    "nested and named": lambda: nn.Sequential(
        OrderedDict(body=nn.Sequential(nn.Linear(4, 6), nn.ELU(0.3), nn.Dropout(0.4)), head=nn.Linear(6, 1))
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding="same", dilation=2), nn.Flatten(), nn.Linear(8, 1)
    ),
    "norms and pools": lambda: nn.Sequential(
        nn.BatchNorm1d(4, eps=0.1), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2, stride=1), nn.Flatten(), nn.Linear(3, 1)
    ),
    "one layer": lambda: nn.Linear(4, 1),
    "without a bias": lambda: nn.Linear(4, 1, bias=False),
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_layers_of_torch_are_built_of_their_parts(kind: str) -> None:
    torch.manual_seed(0)
    model = SEQUENCES[kind]()
    assert describe_model(copy.deepcopy(model)).kind == "parts"
    rebuilt = predicted_as_trained(model)
    assert str(rebuilt) == str(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(4, 4), Enclosed()),
        lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2),
        lambda: nn.TransformerEncoderLayer(4, 2, 4),
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    ],
)
def test_a_module_with_more_than_its_layers_is_not_built_from_parts(make: Any) -> None:
    assert described(make(), (X[:2],)).kind == "none"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_the_weights_is_kept(dtype: torch.dtype) -> None:
    model = Sloped().to(dtype)
    rebuilt = predicted_as_trained(model, (X.to(dtype), Y.to(dtype)))
    assert {parameter.dtype for parameter in rebuilt.parameters()} == {dtype}


def test_types_of_weights_that_differ_are_kept_each() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 1).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x).double())

    class Plain(Mixed):
        def __init__(self) -> None:
            super().__init__()
            self.head.float()

    model = Mixed()
    run = train(model, (X, Y.double()), loss=F.mse_loss, max_step=1)
    assert torch.equal(Predicter.from_pretrained(run.name, "cpu").predict(X), model(X).detach())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapper_leaves_no_trace_in_what_is_saved(wrap: Any) -> None:
    model = Sloped()
    run = train(wrap(model), (X, Y), loss=F.mse_loss, max_step=2)
    content = torch.load(run.path / "iter-2-ckpt.pth", weights_only=True)
    assert list(content["state_dict"]) == list(model.state_dict())
    assert run.info["model"]["class"].endswith(".Sloped")
    assert torch.equal(Predicter.from_pretrained(run.name, "cpu").predict(X), model.eval()(X).detach())
    again = wrap(Sloped())
    assert train(again, (X, Y), loss=F.mse_loss, max_step=3, resume=run.name).details.step == 3
    content["state_dict"] = {f"module._orig_mod.{key}": value for key, value in content["state_dict"].items()}
    torch.save(content, run.path / "iter-2-ckpt.pth")  # as it was saved by darkit 0.1
    (run.path / "iter-2-ckpt.json").unlink()
    Predicter.from_pretrained(f"{run.name}:2", "cpu")


def test_double_precision_resumes_exactly() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return Sloped()

    data: Any = (X, Y)
    settings: Any = {"loss": F.mse_loss, "precision": "64-true", "save_step_interval": 3, "lr": 0.1}
    straight, broken = make(), make()
    train(straight, data, max_step=6, **settings)
    train(make(), data, max_step=3, name="broken", **settings)
    train(broken, data, max_step=6, name="broken", resume=True, **settings)
    assert next(broken.parameters()).dtype == torch.float64
    assert all(torch.equal(value, broken.state_dict()[key]) for key, value in straight.state_dict().items())


def test_a_model_whose_extra_state_is_a_dict_is_described_saved_and_loaded() -> None:
    class Extras(nn.Module):
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.width = width
            self.layer = nn.Linear(4, 1)
            self.count = {"seen": 0}

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.count["seen"] += len(x)
            return self.layer(x)

        def get_extra_state(self) -> dict[str, Any]:
            return dict(self.count)

        def set_extra_state(self, state: dict[str, Any]) -> None:
            self.count = dict(state)

    rebuilt: Any = predicted_as_trained(Extras(), batch_size=4)
    assert rebuilt.count == {"seen": 8}


def test_a_deep_copy_of_a_recurrent_net_is_like_its_twin() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.GRU(4, 3)

    assert describe_model(copy.deepcopy(Reader())).kind == "arguments"


def test_a_scripted_model_trains_and_says_that_it_cannot_be_built_again() -> None:
    scripted: Any = torch.jit.trace(nn.Linear(4, 1), X[:2])
    with pytest.warns(ReproductionWarning):
        run = train(scripted, (X, Y), loss=F.mse_loss, max_step=2)
    assert run.status == "finished"
