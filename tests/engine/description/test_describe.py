"""What is recorded of a model builds the same model again, or the run says at once that it does not."""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import lightning
import numpy
import omegaconf
import pydantic
import pytest
import snntorch
import torch
import torch.nn.functional as F
import transformers
from snntorch import utils
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from darkit.core import Predicter
from darkit.engine.description.describe import ModelDescription, describe_model
from darkit.errors import ModelError, ReproductionWarning
from tests.engine.parts import train

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def described(model: nn.Module, batch: Any = (X[:2],)) -> ModelDescription:
    return describe_model(model, lambda: batch)


def predicted_as_trained(model: nn.Module, data: Any = (X, Y), **settings: Any) -> nn.Module:
    """Trains a model, and compares what it returns afterwards with what its run's predicter returns."""
    settings = {"loss": F.mse_loss, "max_step": 2} | settings
    run = train(model, data, **settings)
    predicter = Predicter.from_pretrained(run.name, "cpu")
    with torch.no_grad():
        expected = model.eval()(X.to(next(model.parameters()).dtype))
    assert torch.equal(predicter.predict(X), expected)
    return predicter.model


class Sloped(nn.Module):
    """Keeps one of its arguments."""

    def __init__(self, width: int = 8, slope: float = 0.01) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(4, width), nn.LeakyReLU(slope), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Enclosed(nn.Module):
    """Hides its argument in a function."""

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.activation = lambda x: F.leaky_relu(x, slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x))


class Heads(nn.Module):
    """As vision transformers have it: the number of heads changes no shape, and the last layer is zero at first."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, heads, batch_first=True)
        self.head = nn.Linear(4, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None] * torch.arange(1.0, 4.0)[:, None].to(x)
        return self.head(self.attend(x, x, x)[0].mean(1))


class Clipped(nn.Module):
    """Its argument shows for large inputs only."""

    def __init__(self, most: float = 3.0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.clip = [lambda x: x.clamp(-most, most)]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.clip[0](x))


class Activated(nn.Module):
    def __init__(self, activation: str = "relu") -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.act = getattr(F, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(x)).sum(1, keepdim=True)


class Dilated(nn.Module):
    def __init__(self, dilation: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 2, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, None]).mean(2)


class Extra(nn.Module):
    """Has a config, and takes more than that."""

    def __init__(self, config: dict[str, int], slope: float = 0.01) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Sequential(nn.Linear(4, config["width"]), nn.LeakyReLU(slope), nn.Linear(config["width"], 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


GUESSED_WRONG = {
    "slope": lambda: Sloped(slope=0.9),
    "a function's": lambda: Enclosed(slope=0.9),
    "heads": lambda: Heads(heads=2),
    "a clip": lambda: Clipped(most=1e4),
    "activation": lambda: Activated("tanh"),
    "dilation": lambda: Dilated(dilation=2),
    "beside a config": lambda: Extra({"width": 4}, slope=0.9),
    "in a sequence": lambda: nn.Sequential(Sloped(slope=0.9)),
}
GUESSED_RIGHT = {
    "slope": lambda: Sloped(width=5),
    "a function's": Enclosed,
    "heads": Heads,
    "a clip": Clipped,
    "activation": Activated,
    "dilation": Dilated,
    "beside a config": lambda: Extra({"width": 4}),
}


@pytest.mark.parametrize("kind", GUESSED_WRONG)
def test_an_argument_that_was_not_kept_is_not_guessed(kind: str) -> None:
    torch.manual_seed(0)
    model = GUESSED_WRONG[kind]()
    with pytest.warns(ReproductionWarning, match=r"No config of \w+ could be recorded .*model="):
        run = train(model, (X, Y), loss=F.mse_loss, max_step=1)
    assert run.info["model"]["config_kind"] == "none"
    with pytest.raises(ModelError, match="pass the model itself as model="):
        Predicter.from_pretrained(run.name)


@pytest.mark.parametrize("kind", GUESSED_WRONG)
def test_nor_is_it_without_any_data(kind: str) -> None:
    assert describe_model(GUESSED_WRONG[kind]()).kind == "none"


@pytest.mark.parametrize("kind", GUESSED_RIGHT)
def test_an_argument_at_its_default_is_proven(kind: str) -> None:
    predicted_as_trained(GUESSED_RIGHT[kind]())
    assert describe_model(GUESSED_RIGHT[kind]()).kind != "none"


class Noted(nn.Module):
    """Looks different every time, and is the same function: only its outputs can show it."""

    numbers = count()

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.number = next(self.numbers)
        self.width = width
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.layer = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(len(x))
        self.last = x
        return F.dropout(self.norm(self.layer(x)), training=self.training).sum(1, keepdim=True)


def test_the_proof_leaves_the_model_and_the_generators_as_they_were() -> None:
    torch.manual_seed(3)
    model = Noted()
    model.norm.eval()
    before = copy.deepcopy(
        (model.state_dict(), {key: value for key, value in vars(model).items() if key != "_modules"})
    )
    state = torch.get_rng_state()
    assert describe_model(model).kind == "none"
    found = described(model)
    assert (found.kind, found.values) == ("arguments", {"width": 4})
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.norm.training
    assert (model.calls.item(), model.seen, hasattr(model, "last")) == (0, [], False)
    assert set(vars(model)) - {"_modules"} == set(before[1])
    assert all(torch.equal(value, before[0][key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Shared(nn.Module):
    """Keeps its argument where every instance sees it."""

    scale = 1.0

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        Shared.scale = factor
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * Shared.scale


def test_what_a_constructor_changes_in_its_class_is_put_back_and_proves_nothing() -> None:
    model = Shared(3.0)
    assert described(model).kind == "none"
    assert Shared.scale == 3.0
    assert described(Shared(1.0)).kind == "arguments"


class Aliased(pydantic.BaseModel):
    width: int = pydantic.Field(3, alias="w")
    inner: Any = None


@pytest.mark.parametrize(
    "config",
    [
        Aliased(w=5),
        SimpleNamespace(width=2, inner=SimpleNamespace(deep=(1, {2}))),
        argparse.Namespace(width=2, inner=argparse.Namespace(deep={1: "x"})),
    ],
)
def test_aliases_and_namespaces_in_namespaces_come_back(config: Any) -> None:
    assert predicted_as_trained(Configured(config)).config == config


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
    """As snntorch's tutorials have it."""

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
def test_what_is_more_than_its_layers_is_not_built_of_parts(make: Any) -> None:
    assert described(make(), (X[:2],)).kind == "none"


class Listed(nn.Module):
    """Keeps arguments that JSON would change, and uses them as they are."""

    def __init__(self, sizes: list[int], names: dict[int, str], pair: tuple[int, int] = (1, 2)) -> None:
        super().__init__()
        self.sizes, self.names, self.pair = sizes, names, pair
        assert isinstance(pair, tuple)
        self.layer = nn.Linear(sizes[0], sizes[1] + names[1].count("x"))
        self.out = nn.Linear(self.layer.out_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x)) * self.pair[1]


def test_sampled_numbers_integer_keys_and_tuples_come_back_as_they_were() -> None:
    sizes = [numpy.int64(4), numpy.random.default_rng(0).choice([3, 5])]
    model = Listed(sizes, {1: "xx", 2: "y"}, (3, 4))
    rebuilt: Any = predicted_as_trained(model)
    assert (rebuilt.sizes, rebuilt.names, rebuilt.pair) == ([4, int(sizes[1])], {1: "xx", 2: "y"}, (3, 4))


@dataclass
class Loose:
    """Fields whose annotations do not tell what is in them."""

    width: Any = 4
    table: dict = field(default_factory=dict)  # type: ignore[type-arg]
    shape: Any = None


class Configured(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(4, int(config["width"] if isinstance(config, dict) else config.width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "config",
    [
        Loose(numpy.int64(3), {1: (1, 2), 2: {0.5: "a"}}, torch.Size([2, 3])),
        Loose(3, {"": (1,), "a/b": {3}, "~": frozenset("x")}, 1 + 2j),
        {"width": 3, "table": {8: [(9,)]}},
        SimpleNamespace(width=numpy.int32(3), weights=numpy.array([1.0, 2.0])),
        argparse.Namespace(width=3, weights=torch.tensor([1.0, 2.0], dtype=torch.float64)),
        omegaconf.OmegaConf.create({"width": 3, "inner": {"names": ["a", "b"]}, "again": "${width}"}),
    ],
    ids=["numbers", "keys", "dict", "SimpleNamespace", "Namespace", "DictConfig"],
)
def test_a_config_comes_back_with_the_types_it_had(config: Any) -> None:
    found = predicted_as_trained(Configured(config)).config  # type: ignore[union-attr]
    assert type(found) is type(config)
    if isinstance(config, Loose):
        assert found == config
        assert type(found.shape) in (complex, tuple)
    elif not isinstance(config, dict | omegaconf.DictConfig):
        assert type(found.weights) is type(config.weights)
        assert found.weights.dtype == config.weights.dtype
    elif isinstance(config, dict):
        assert found == config
    else:
        assert found.inner.names == ["a", "b"]
        assert found.again == 3


class Own:
    """A value of a class of one's own."""

    def __init__(self, width: int) -> None:
        self.width = width


class Deep(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(4, config.width.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_field_that_json_changes_is_named_at_once() -> None:
    with pytest.warns(ReproductionWarning, match=r"config: AttributeError|JSON changes 'width'"):
        train(Deep(Loose(Own(3))), (X, Y.expand(-1, 3)), loss=F.mse_loss, max_step=1)

    class Attributes(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return self[name]

    found = described(Configured(Attributes(width=3)))
    assert found.kind == "dict"  # the outputs are proven to be the same, though the class is not


def test_arguments_that_were_recorded_whole_need_no_proof() -> None:
    class Recorded(nn.Module):
        def __init__(self, width: int, slope: float = 0.01) -> None:
            super().__init__()
            self.hparams = {"width": width, "slope": slope}
            self.layer = nn.Linear(4, width)
            self.stamp = object()

    assert describe_model(Recorded(3, 0.5)).values == {"width": 3, "slope": 0.5}
    partly = Recorded(3, 0.5)
    partly.hparams = {"width": 3}
    assert describe_model(partly).kind == "none"


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


def test_double_precision_goes_on_exactly() -> None:
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


def test_a_lightning_module_is_described_and_left_as_it_is() -> None:
    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

    model = Lit()
    before = set(vars(model))
    assert describe_model(model).kind == "arguments"
    assert set(vars(model)) == before


def test_a_transformers_model_made_with_more_than_its_config_is_not_guessed() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=9, max_position_embeddings=8, **sizes)
    batch = {"input_ids": torch.tensor([[1, 2, 3]])}
    assert described(transformers.BertModel(config), batch).kind == "transformers"
    assert described(transformers.BertModel(config, add_pooling_layer=False), batch).kind == "none"


def test_what_is_recorded_is_json_and_is_read_back() -> None:
    found = described(Listed([4, 3], {1: "x"}, (1, 2)))
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert found.types == {"/names": "int keys", "/pair": "tuple"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described(Sloped())


class Hidden(nn.Module):
    """Turns one of its arguments into a tensor that no checkpoint holds."""

    def __init__(self, width: int = 8, slope: float = 0.5) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(4, width)
        self.register_buffer("slope_", torch.tensor(slope), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.slope_


def test_a_large_model_is_not_built_a_second_time_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(Hidden(8)).kind == "arguments"
    monkeypatch.setattr("darkit.engine.description.twin._LARGEST", 100)
    refused = described(Hidden(8))
    assert refused.kind == "none"
    assert "too large" in refused.reason
    assert described(nn.Sequential(nn.Linear(4, 64), nn.ReLU())).kind == "parts"  # alike without any memory


@dataclass
class Part:
    width: int = 8
    dims: tuple[int, int] = (4, 1)


@dataclass
class Whole:
    part: Part = field(default_factory=Part)
    slope: float = 0.01


class ByAnotherName(nn.Module):
    """Keeps its config under the name of the constructor's parameter, which is not ``config``."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.layers = nn.Sequential(nn.Linear(4, cfg.part.width), nn.Linear(cfg.part.width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * self.cfg.slope


@pytest.mark.parametrize(
    "cfg", [Whole(Part(6), 0.5), SimpleNamespace(part=SimpleNamespace(width=6), slope=0.5)], ids=["dataclass", "names"]
)
def test_a_config_that_is_kept_under_the_parameters_name_comes_back(cfg: Any) -> None:
    model = predicted_as_trained(ByAnotherName(cfg))
    assert model.cfg.part.width == 6


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
