"""The record of a model rebuilds the same model, or the run warns at once."""

from __future__ import annotations

import copy
from itertools import count

import lightning
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from darkit.core import Predicter
from darkit.engine.description.describe import describe_model
from darkit.errors import ModelError, ReproductionWarning
from tests.engine.description.models import Enclosed, Sloped, X, Y, described, predicted_as_trained
from tests.engine.parts import train


class Heads(nn.Module):
    """Like vision transformers: the number of heads changes no shape, and the last layer is initially zero."""

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
    """Its argument has an effect for large inputs only."""

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
    """Has a config and further arguments."""

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
    """Has different attributes every time, but is the same function."""

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
    """Keeps its argument in the class."""

    scale = 1.0

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        Shared.scale = factor
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * Shared.scale


def test_class_attributes_changed_by_a_constructor_are_restored_and_prove_nothing() -> None:
    model = Shared(3.0)
    assert described(model).kind == "none"
    assert Shared.scale == 3.0
    assert described(Shared(1.0)).kind == "arguments"


def test_fully_recorded_arguments_need_no_proof() -> None:
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


class Hidden(nn.Module):
    """Turns an argument into a tensor that no checkpoint has."""

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
