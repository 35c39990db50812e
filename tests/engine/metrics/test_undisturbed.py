"""Evaluation and prediction leave a module unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.core import Predicter
from darkit.engine.callbacks.evaluate import evaluate
from darkit.engine.metrics.undisturbed import evaluating, undisturbed
from tests.engine.callbacks.stock import stock_fit
from tests.engine.parts import equal_weights, in_order, made, train, xy


@dataclass
class Memory:
    potential: Any = None


class Stateful(nn.Module):
    """Keeps state in every way that spiking and recurrent networks do, and uses all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("held", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1), persistent=False)
        self.register_buffer("missing", None)
        self.plain: Any = 0.0
        self.hidden: Any = None
        self.memories: dict[str, Any] = {"v": torch.zeros(1)}
        self.layers = [torch.zeros(1), torch.zeros(1)]
        self.record = Memory(torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        for state in (self.held, self.replaced, self.plain, self.memories["v"], *self.layers, self.record.potential):
            out = out + 0.1 * state
        mean = out.detach().mean().reshape(1)
        self.held += mean
        self.replaced = self.replaced + mean
        self.missing = mean
        self.plain = self.plain + mean
        self.hidden = (mean, mean)
        self.memories["v"] = self.memories["v"] + mean
        self.memories["new"] = mean
        self.layers[0] = mean
        self.layers[1].add_(mean)
        self.record.potential = mean
        self.late = mean
        self.seen.append(mean)
        return out


def numbers(model: Stateful) -> list[Any]:
    state = (model.held, model.replaced, model.missing, model.plain, model.hidden, model.memories, model.layers)
    return [repr(value) for value in (*state, model.record, hasattr(model, "late"))]


@pytest.mark.parametrize("around", [evaluating, undisturbed])
def test_state_of_every_kind_is_put_back(around: Any) -> None:
    model = made(Stateful)
    before = numbers(model)
    with around(model), torch.no_grad():
        first = model(xy()[0])
        assert numbers(model) != before
    assert numbers(model) == before
    with around(model), torch.no_grad():
        assert torch.equal(model(xy()[0]), first)
    model(xy()[0])
    between = numbers(model)
    with around(model), torch.no_grad():
        model(xy()[0])
    assert numbers(model) == between
    assert len(model.seen) == 4  # a list that only grows gathers results


class Counting(nn.Module):
    """Keeps plain values, and containers that change only in length."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.stack = [torch.zeros(1), torch.ones(1)]
        self.table: dict[str, Any] = {"v": torch.zeros(1)}
        self.empty: dict[str, Any] = {}
        self.names: list[str] = ["a", "b"]

    def forward(self) -> None:
        self.calls += 1
        self.last = "said"
        self.stack.pop()
        self.table["new"] = torch.ones(1)
        self.empty["new"] = torch.ones(1)
        self.names.pop()


def test_containers_of_tensors_get_their_items_back_and_plain_values_stay_as_they_become() -> None:
    model = Counting()
    with undisturbed(model):
        model()
    assert (len(model.stack), list(model.table), model.empty) == (2, ["v"], {})
    assert (model.calls, model.last, model.names) == (1, "said", ["a"])


def test_even_after_an_error() -> None:
    model = made(Stateful)
    before = numbers(model)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        model(xy()[0])
        raise ZeroDivisionError
    assert numbers(model) == before
    assert model.training


class Spiking(nn.Module):
    """A leaky neuron of snntorch that keeps its potential from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.neuron = snntorch.Leaky(beta=0.9, init_hidden=True, output=False)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(self.layer(x))
        potential: Tensor = self.neuron.mem
        self.neuron.mem = potential.detach()
        return spikes + potential


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
@pytest.mark.parametrize("cls", [Stateful, Spiking])
def test_evaluating_often_or_never_trains_the_same_weights(cls: Any) -> None:
    often, never = made(cls), made(cls)
    settings: dict[str, Any] = {"loss": F.mse_loss, "optimizer": "sgd"}
    train(often, in_order(), in_order(), eval_step_interval=1, **settings)
    train(never, in_order(), **settings)
    assert equal_weights(often, never)


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
def test_a_predicter_gives_the_same_answer_twice() -> None:
    run = train(made(Spiking), in_order(), loss=F.mse_loss)
    model = made(Spiking)
    predicter = Predicter.from_pretrained(run.name, "cpu", model=model)
    first = predicter.predict(xy()[0])
    assert torch.equal(predicter.predict(xy()[0]), first)


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(x))))  # type: ignore[no-any-return]


class Stock(lightning.LightningModule):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.module(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, fused=True)


@pytest.mark.filterwarnings("ignore:::lightning")
def test_parts_that_are_in_evaluation_mode_before_the_training_stay_so_as_in_a_stock_trainer() -> None:
    ours, theirs = made(Frozen), made(Frozen)
    for model in (ours, theirs):
        model.norm.eval()
        model.drop.eval()
    train(ours, in_order(), xy(), loss=F.mse_loss, optimizer="sgd", lr=0.1, eval_step_interval=2)
    stock_fit(Stock(theirs), data=in_order(), max_steps=6)
    assert equal_weights(ours, theirs)
    assert (ours.training, ours.norm.training, ours.drop.training) == (True, False, False)
    assert torch.equal(ours.norm.running_mean, torch.zeros(4))


def test_a_model_fully_in_evaluation_mode_is_trained_with_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = made(Frozen).eval()
    train(model, in_order(), loss=F.mse_loss)
    assert all(part.training for part in model.modules())
    assert "The whole model was in evaluation mode" in " ".join("".join(capsys.readouterr()).split())


def test_the_modes_are_back_after_an_evaluation() -> None:
    model = made(Frozen)
    model.drop.eval()
    evaluate(model, [xy()], lambda batch, _: {"loss": model(batch[0]).mean()}, 0)
    assert (model.training, model.norm.training, model.drop.training) == (True, True, False)
