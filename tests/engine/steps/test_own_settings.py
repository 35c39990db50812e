"""What a checkpoint records of settings that code gives to its optimizer and schedule, and what is compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, AdamW
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from darkit.engine.steps.own_settings import KEY, OwnSettings
from darkit.errors import ConfigError, ReproductionWarning


def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]


def given(optimizer: Any, schedule: Any = None) -> dict[str, Any]:
    own = OwnSettings()
    own.compare(optimizer, schedule, None)
    assert own.given is not None
    return {KEY: own.given}


def compared(own: OwnSettings, *arguments: Any) -> set[str]:
    found = own.compare(*arguments)
    own.report()
    return found


def trained(optimizer: Any, steps: int = 3) -> Any:
    for _ in range(steps):
        for group in optimizer.param_groups:
            for one in group["params"]:
                one.grad = torch.ones_like(one)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        (lambda o: ExponentialLR(o, 0.9), lambda o: ExponentialLR(o, 0.8), "scheduler.gamma"),
        (lambda o: CosineAnnealingLR(o, 5), lambda o: CosineAnnealingLR(o, 6), "scheduler.T_max"),
        (lambda o: MultiStepLR(o, [2, 3]), lambda o: MultiStepLR(o, [2, 4]), "scheduler.milestones"),
        (lambda o: OneCycleLR(o, 0.2, 9), lambda o: OneCycleLR(o, 0.2, 10), "scheduler.total_steps"),
        (lambda o: ReduceLROnPlateau(o, patience=2), lambda o: ReduceLROnPlateau(o, patience=3), "scheduler.patience"),
        (
            lambda o: SequentialLR(o, [ExponentialLR(o, 0.9), ExponentialLR(o, 0.5)], [2]),
            lambda o: SequentialLR(o, [ExponentialLR(o, 0.9), ExponentialLR(o, 0.4)], [2]),
            "scheduler._schedulers",
        ),
    ],
)
def test_a_schedule_with_another_setting_is_found_whatever_its_progress(one: Any, other: Any, key: str) -> None:
    before = SGD(weights(), 0.1, momentum=0.9)
    saved = given(before, one(before))
    again = SGD(weights(), 0.1, momentum=0.9)
    assert compared(OwnSettings(fork=True), again, one(again), saved) == set()
    now = SGD(weights(), 0.1, momentum=0.9)
    with pytest.raises(ConfigError, match=key):
        compared(OwnSettings(fork=True), now, other(now), saved)


def test_values_of_groups_that_differ_are_listed_by_group_and_hold_only_where_they_may() -> None:
    def two(first: float, second: float) -> Any:
        one, other = weights()
        return AdamW([{"params": [one], "lr": first}, {"params": [other], "lr": second}])

    told: list[Any] = []
    saved = given(two(0.1, 0.2))
    own = OwnSettings(fork=True, tell=told.append)
    assert compared(own, two(0.1, 0.3), None, saved) == {"lr"}
    assert told == [{"optimizer.lr": ([0.1, 0.2], [0.1, 0.3])}]
    resumed = OwnSettings()
    with pytest.warns(ReproductionWarning, match="has no effect; resume_overrides=true"):
        assert compared(resumed, two(0.1, 0.3), None, saved) == set()
    assert resumed.given == saved[KEY]
    assert compared(OwnSettings({"optimizer.lr"}), two(0.1, 0.3), None, saved) == {"optimizer.lr", "lr"}
    assert compared(OwnSettings({"lr"}), two(0.1, 0.3), None, saved) == {"lr"}, "listed by the config"


def test_kernels_and_an_optimizer_that_was_trained_before_are_not_compared() -> None:
    saved = given(AdamW(weights(), 0.1))
    assert compared(OwnSettings(fork=True), AdamW(weights(), 0.1, foreach=True), None, saved) == set()
    own = OwnSettings(fork=True)
    assert compared(own, trained(SGD(weights(), 0.2, momentum=0.5)), None, given(SGD(weights(), 0.1))) == set()
    assert own.given == given(SGD(weights(), 0.1))[KEY]
    assert compared(OwnSettings(fork=True), Adagrad(weights(), 0.2), None, given(Adagrad(weights(), 0.1))) == {"lr"}


class Counting(ExponentialLR):
    """A schedule that counts, in a way of its own."""

    seen = 0

    def __init__(self, optimizer: Any, gamma: float, min_lr: float = 0.0) -> None:
        super().__init__(optimizer, gamma)
        self.min_lr = min_lr

    def step(self, epoch: int | None = None) -> None:
        self.seen += 1
        super().step()


class Estimating(SGD):
    """An optimizer that keeps its progress in its groups."""

    def __init__(self, params: Any, lr: float = 0.1, estimate: float = 1.0, **settings: Any) -> None:
        super().__init__(params, lr, **settings)
        self.param_groups[0]["estimate"] = estimate

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["estimate"] *= 2
        return super().step(closure)


def sgd(lr: float = 0.1, momentum: float = 0.9, **settings: Any) -> SGD:
    return SGD(weights(), lr, momentum=momentum, **settings)


def restarting(optimizer: Any) -> Any:
    return CosineAnnealingWarmRestarts(optimizer, 2, 2)


def earlier(optimizer: Any, make: Any = None, steps: int = 5) -> dict[str, Any]:
    """Return a checkpoint of an earlier version, which has nothing but the state, after some steps."""
    schedule = make(optimizer) if make else None
    for _ in range(steps):
        trained(optimizer, 1)
        if schedule is not None:
            schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))
    state = schedule.state_dict() if schedule is not None else None
    return {"optimizer_state_dict": optimizer.state_dict(), "scheduler_state_dict": state}


@pytest.mark.parametrize(
    "make",
    [
        None,
        lambda o: ExponentialLR(o, 0.9),
        lambda o: LambdaLR(o, lambda step: 1 / (step + 1)),
        lambda o: CyclicLR(o, 0.01, 0.1, 3),
        lambda o: OneCycleLR(o, 0.2, 9),
        lambda o: ReduceLROnPlateau(o, factor=0.3, patience=0, min_lr=0.002),
        restarting,
        lambda o: SequentialLR(o, [ConstantLR(o), restarting(o)], [1]),
    ],
)
def test_a_checkpoint_that_does_not_record_what_was_given_is_compared_without_progress(make: Any) -> None:
    def compare(optimizer: Any) -> OwnSettings:
        own = OwnSettings(fork=True)
        own.compare(optimizer, make and make(optimizer), saved)
        own.report()
        return own

    saved = earlier(sgd(), make)
    same = compare(sgd())
    assert same.given is not None
    fresh = sgd()
    assert given(fresh, make and make(fresh))[KEY].items() >= same.given.items(), "as if it had been recorded"
    held = sgd(weight_decay=0.5)
    assert OwnSettings(fork=True).compare(held, make and make(held), saved) == {"weight_decay"}
    with pytest.raises(ConfigError, match=r"optimizer\.nesterov False -> True has no effect: give the earlier value"):
        compare(sgd(nesterov=True))
    with pytest.warns(ReproductionWarning, match="nesterov False -> True has no effect"):
        compared(OwnSettings(), other := sgd(nesterov=True), make and make(other), saved)


@pytest.mark.parametrize("make", [None, lambda o: ExponentialLR(o, 0.9), lambda o: ReduceLROnPlateau(o, patience=0)])
def test_another_rate_than_that_of_the_state_holds_in_a_fork_and_is_recorded_as_it_holds(make: Any) -> None:
    saved = earlier(sgd(), make)
    now = sgd(0.02)
    own = OwnSettings(fork=True)
    assert compared(own, now, make and make(now), saved) == {"lr"}
    assert own.given is not None
    assert own.given["optimizer.lr"] == [0.02]
    own = OwnSettings()
    with pytest.warns(ReproductionWarning, match=r"optimizer\.lr .* -> 0\.02 has no effect; resume_overrides=true"):
        compared(own, again := sgd(0.02), make and make(again), saved)
    assert own.given is not None
    assert own.given["optimizer.lr"] != [0.02]


def test_a_schedule_with_another_setting_than_that_of_the_state_is_refused() -> None:
    saved, now = earlier(sgd(), lambda o: ExponentialLR(o, 0.9)), sgd()
    with pytest.raises(ConfigError, match=r"scheduler\.gamma 0\.9 -> 0\.8"):
        compared(OwnSettings(fork=True), now, ExponentialLR(now, 0.8), saved)


def test_a_value_that_a_callback_may_have_changed_is_warned_of_and_not_recorded() -> None:
    saved = earlier(sgd())
    own = OwnSettings(fork=True, has_callbacks=True)
    with pytest.warns(ReproductionWarning, match=r"code or a callback .* so optimizer\.lr 0\.1 -> 0\.2 has no effect"):
        assert compared(own, sgd(0.2), None, saved) == set()
    assert own.given is None
    assert compared(OwnSettings(fork=True, has_callbacks=True), sgd(), None, saved) == set()
    assert compared(OwnSettings(fork=True, allowed=True, has_callbacks=True), sgd(0.2), None, saved) == {"lr"}
    saved, now = earlier(sgd(), lambda o: ExponentialLR(o, 0.9)), sgd(0.2)
    own = OwnSettings(fork=True, has_callbacks=True)
    assert compared(own, now, ExponentialLR(now, 0.9), saved) == {"lr"}, "a schedule keeps the first rate"
    assert own.given is not None


def test_a_setting_of_a_schedule_of_ones_own_may_be_called_as_torchs_are_in_the_groups() -> None:
    saved, now = given(one := sgd(), Counting(one, 0.9)), sgd()
    with pytest.raises(ConfigError, match=r"scheduler\.min_lr 0\.0 -> 0\.1"):
        compared(OwnSettings(fork=True), now, Counting(now, 0.9, 0.1), saved)


def test_progress_of_a_schedule_of_ones_own_is_no_difference() -> None:
    saved, now = earlier(sgd(), lambda o: Counting(o, 0.9)), sgd()
    own = OwnSettings(fork=True)
    assert compared(own, now, Counting(now, 0.9), saved) == set()
    assert own.given is not None
    assert "scheduler.seen" not in own.given
    assert own.given["scheduler.gamma"] == 0.9
    now = sgd(momentum=0.5)
    with pytest.warns(ReproductionWarning, match=r"so optimizer\.momentum 0\.9 -> 0\.5 has no effect\.$"):
        compared(OwnSettings(fork=True), now, Counting(now, 0.9), saved)


def test_progress_in_the_groups_of_an_optimizer_is_neither_compared_nor_recorded() -> None:
    saved = earlier(Estimating(weights()))
    own = OwnSettings(fork=True)
    assert compared(own, Estimating(weights()), None, saved) == set()
    assert own.given is not None
    assert "optimizer.estimate" not in own.given
    assert own.given["optimizer.lr"] == [0.1]
    assert compared(OwnSettings(fork=True), Estimating(weights(), 0.2), None, saved) == {"lr"}


def test_an_optimizer_of_the_config_is_compared_elsewhere() -> None:
    own = OwnSettings(fork=True)
    assert own.compare(sgd(0.2), None, earlier(sgd()), is_own=False) == set()
    assert own.given == given(sgd(0.2))[KEY]
