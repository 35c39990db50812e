"""What a checkpoint records of settings that code gives to its optimizer and schedule, and what is compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
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
