"""Optimizers and schedules: by name, as objects, as callables; the values of the rates; what is refused."""

from __future__ import annotations

import functools
import math
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from darkit.engine.config import TrainerConfig
from darkit.engine.steps.optim import learning_rate_factor, make_optimizer, optimizer_class, restore_optimizer
from darkit.engine.steps.schedule import make_schedule
from darkit.errors import ConfigError, ModelError
from tests.engine.parts import MLP, equal_weights, hand_loop, in_order, made, run_names, train, xy


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("adamw", torch.optim.AdamW),
        ("Adam", torch.optim.Adam),
        ("SGD", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_an_optimizer_is_found_by_its_name_in_any_case(name: str, cls: type) -> None:
    assert optimizer_class(name) is cls


def test_the_config_gives_what_the_optimizers_class_knows() -> None:
    config = TrainerConfig(optimizer="adamw", lr=0.5, weight_decay=0.25, betas=(0.5, 0.75))
    adamw = make_optimizer(made(), config, None)
    assert {key: adamw.defaults[key] for key in ("lr", "weight_decay", "betas")} == {
        "lr": 0.5,
        "weight_decay": 0.25,
        "betas": (0.5, 0.75),
    }
    sgd = make_optimizer(made(), TrainerConfig(optimizer="sgd", lr=0.5), None)
    assert (type(sgd), sgd.defaults["lr"]) == (torch.optim.SGD, 0.5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adamm", "Did you mean 'adam'"),
        ("lbfgs", "LBFGS computes the loss several times"),
        ("optimizer", "Unknown optimizer"),
    ],
)
def test_an_unknown_optimizer_is_refused_with_the_nearest_and_leaves_nothing(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(made(), xy(), optimizer=name)
    assert run_names() == []


def test_an_optimizer_that_cannot_be_made_for_the_model_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match=r"The optimizer 'muon' cannot be made for this model: .*2D"):
        train(made(), xy(), optimizer="muon")  # the model has biases
    assert run_names() == []


@pytest.mark.parametrize("wrong", [3, [1], lambda parameters: parameters, lambda parameters: None])
def test_what_is_no_optimizer_is_refused_and_leaves_nothing(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="optimizer= must be or make a torch optimizer, not "):
        train(made(), xy(), optimizer=wrong)
    assert run_names() == []


class Sharp(torch.optim.SGD):
    """As optimizers that look around the weights are written: its step needs a closure."""

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return super().step(closure)


@pytest.mark.parametrize("way", [torch.optim.LBFGS, lambda parameters: torch.optim.LBFGS(parameters), Sharp, "LBFGS"])
def test_an_optimizer_that_needs_several_passes_is_refused_with_what_to_use_and_leaves_nothing(way: Any) -> None:
    with pytest.raises(ConfigError, match=r"(LBFGS|Sharp) computes the loss several times .* darkit.core.Trainer"):
        train(made(), xy(), optimizer=way)
    model = made()
    with pytest.raises(ConfigError, match="LBFGS computes the loss several times"):
        train(model, xy(), optimizer=torch.optim.LBFGS(model.parameters()))
    assert run_names() == []


@pytest.mark.parametrize("kind", [list, tuple, lambda found: dict(zip("ab", found, strict=True))])
def test_several_optimizers_are_refused_with_what_to_use_and_leave_nothing(kind: Any) -> None:
    model = made()
    several = kind([SGD(model.layers[0].parameters()), SGD(model.layers[2].parameters())])
    for way in (several, lambda parameters: several):
        with pytest.raises(ConfigError, match=r"steps one optimizer, not 2.* as groups, .* darkit.core.Trainer"):
            train(model, xy(), optimizer=way)
    assert run_names() == []


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_one_optimizer_is_that_optimizer(kind: Any) -> None:
    ours, theirs = made(), made()
    train(ours, in_order(), optimizer=lambda parameters: kind([SGD(parameters)]))
    train(theirs, in_order(), optimizer=SGD)
    assert equal_weights(ours, theirs)


def test_an_optimizer_of_another_model_is_refused_and_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match=r"optimizer= holds no parameter of this MLP"):
        train(made(), xy(), optimizer=torch.optim.Adam(made().parameters()))
    assert run_names() == []


def test_an_optimizer_may_hold_more_than_the_model() -> None:
    model, scale = made(), torch.nn.Parameter(torch.ones(()))
    optimizer = SGD([*model.parameters(), scale])
    train(model, xy(), optimizer=optimizer, loss=lambda outputs, target: ((outputs * scale - target) ** 2).mean())
    assert scale.item() != 1


def test_a_model_with_nothing_to_train_is_refused_and_leaves_nothing() -> None:
    model = made().requires_grad_(False)
    with pytest.raises(ModelError, match="The model MLP has no parameter that requires a gradient"):
        train(model, xy())
    assert run_names() == []


def half_frozen() -> MLP:
    model: MLP = made()
    model.layers[0].requires_grad_(False)
    return model


class Unfreeze(lightning.Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2:
            pl_module.requires_grad_(True)


@pytest.mark.parametrize("given", [None, functools.partial(torch.optim.AdamW, weight_decay=0.5)])
def test_frozen_parameters_stay_and_train_once_they_are_unfrozen(given: Any) -> None:
    ours, theirs = half_frozen(), half_frozen()
    train(ours, in_order(), optimizer=given, max_step=2, weight_decay=0.5)
    assert torch.equal(ours.layers[0].weight, theirs.layers[0].weight)
    ours = half_frozen()
    train(ours, in_order(), optimizer=given or "adamw", max_step=4, callbacks=[Unfreeze()], lr=1e-3, weight_decay=0.5)
    by_hand = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.5)
    for step, (x, y) in enumerate(in_order(), start=1):
        by_hand.zero_grad()
        F.mse_loss(theirs(x), y).backward()
        by_hand.step()
        theirs.requires_grad_(step >= 2 or None) if step == 2 else None
    assert torch.equal(ours.layers[0].weight, theirs.layers[0].weight)


def test_a_checkpoint_whose_optimizer_left_frozen_parameters_out_is_resumed() -> None:
    model = half_frozen()
    older = torch.optim.Adam([one for one in model.parameters() if one.requires_grad])
    F.mse_loss(model(xy()[0]), xy()[1]).backward()
    older.step()
    optimizer = make_optimizer(model, TrainerConfig(optimizer="adam"), None)
    state = {"optimizer_state_dict": older.state_dict(), "current_step": 1}
    restore_optimizer(optimizer, None, state, (), own_schedule=True)
    assert all(torch.equal(optimizer.state[one]["exp_avg"], older.state[one]["exp_avg"]) for one in older.state)
    assert set(optimizer.state) == set(older.state)


SGD = functools.partial(torch.optim.SGD, lr=0.125, momentum=0.5)


@pytest.mark.parametrize("way", ["object", "partial", "class", "name"])
def test_optimizers_given_in_any_way_train_as_in_a_hand_written_loop(way: str) -> None:
    ours, theirs = made(), made()
    given: Any = {"object": SGD(ours.parameters()), "partial": SGD, "class": torch.optim.Adam, "name": "sgd"}[way]
    by_hand: Any = {
        "object": SGD,
        "partial": SGD,
        "class": torch.optim.Adam,
        "name": functools.partial(torch.optim.SGD, lr=1e-3),
    }[way]
    train(ours, in_order(), optimizer=given, max_step=8)
    hand_loop(theirs, list(in_order()) * 2, by_hand(theirs.parameters()))
    assert equal_weights(ours, theirs)


def test_an_optimizer_object_with_groups_keeps_their_rates() -> None:
    model = made()
    groups = [{"params": model.layers[0].parameters(), "lr": 0.5}, {"params": model.layers[2].parameters(), "lr": 0.25}]
    run = train(model, xy(), optimizer=torch.optim.SGD(groups), scheduler=lambda opt: StepLR(opt, 2, 0.5), max_step=4)
    assert run.log()["lr"].to_list() == [0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("way", ["object", "callable"])
def test_schedules_given_in_any_way_train_as_in_a_hand_written_loop(way: str) -> None:
    ours, theirs = made(), made()
    optimizer, by_hand = SGD(ours.parameters()), SGD(theirs.parameters())
    make = functools.partial(ExponentialLR, gamma=0.5)
    train(ours, in_order(), optimizer=optimizer, scheduler=make(optimizer) if way == "object" else make, max_step=4)
    hand_loop(theirs, list(in_order()), by_hand, schedule=make(by_hand))
    assert equal_weights(ours, theirs)


def test_a_schedule_by_name_is_the_configs() -> None:
    run = train(made(), xy(), optimizer="sgd", scheduler="linear", lr=1.0, max_step=4)
    assert run.log()["lr"].to_list() == [1.0, 0.75, 0.5, 0.25]
    assert (run.trainer_config["optimizer"], run.trainer_config["scheduler"]) == ("sgd", "linear")


def test_an_unknown_schedule_is_refused_with_the_choices_and_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match="scheduler must be one of constant, linear, cosine, not 'step'"):
        train(made(), xy(), scheduler="step")
    assert run_names() == []


def test_the_schedule_of_another_optimizer_is_refused_and_leaves_nothing() -> None:
    model = made()
    schedule = StepLR(SGD(model.parameters()), 1)
    with pytest.raises(ConfigError, match="the schedule of another optimizer"):
        train(model, xy(), scheduler=schedule)
    assert run_names() == []


def factors(**settings: Any) -> list[float]:
    config = TrainerConfig(max_step=10, **settings)
    return [learning_rate_factor(step, config) for step in range(10)]


def test_a_constant_rate_is_constant() -> None:
    assert factors() == [1.0] * 10
    assert make_schedule(SGD(made().parameters()), TrainerConfig(), None) is None


def test_the_warm_up_grows_in_equal_parts_to_the_peak() -> None:
    assert factors(warmup_step=4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


def test_a_linear_rate_falls_in_equal_parts_to_nothing_at_the_end() -> None:
    assert factors(scheduler="linear") == pytest.approx([1 - step / 10 for step in range(10)])
    assert learning_rate_factor(10, TrainerConfig(max_step=10, scheduler="linear")) == 0
    assert factors(scheduler="linear", warmup_step=2) == pytest.approx([1 / 3, 2 / 3, *(1 - s / 8 for s in range(8))])


def test_a_cosine_rate_is_half_a_cosine_after_the_warm_up() -> None:
    half = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert factors(scheduler="cosine", warmup_step=2) == pytest.approx([1 / 3, 2 / 3, *half])
    assert learning_rate_factor(10, TrainerConfig(max_step=10, scheduler="cosine")) == pytest.approx(0)


def test_beyond_the_last_step_the_rate_stays_at_nothing() -> None:
    for scheduler in ("linear", "cosine"):
        assert learning_rate_factor(25, TrainerConfig(max_step=10, scheduler=scheduler)) == pytest.approx(0)


def test_a_warm_up_longer_than_the_run_never_fails() -> None:
    assert factors(scheduler="cosine", warmup_step=30) == pytest.approx([(step + 1) / 31 for step in range(10)])


def test_the_log_shows_the_rate_that_each_step_was_made_with() -> None:
    run = train(made(), xy(), lr=0.5, scheduler="cosine", warmup_step=2, max_step=10, batch_size=4)
    assert run.log()["lr"].to_list() == pytest.approx([0.5 * f for f in factors(scheduler="cosine", warmup_step=2)])


def test_a_scheduled_run_equals_a_hand_written_loop_bit_for_bit() -> None:
    ours, theirs = made(), made()
    train(ours, in_order(), lr=0.1, scheduler="cosine", warmup_step=2, max_step=8)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.0, fused=True)
    config = TrainerConfig(max_step=8, scheduler="cosine", warmup_step=2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    hand_loop(theirs, list(in_order()) * 2, optimizer, schedule=schedule)
    assert equal_weights(ours, theirs)


def test_tied_parameters_are_optimized_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight

    assert len(make_optimizer(Tied(), TrainerConfig(), None).param_groups[0]["params"]) == 3
