"""Settings of an optimizer are those of the end of the step, or the save is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from darkit.engine.checkpoints.settings import OptimizerSettings


def optimizer(**settings: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [nn.Parameter(torch.ones(2))]}, {"params": [], "lr": 0.2}], **settings)


def test_the_settings_of_each_group_are_put_back_whatever_became_of_them() -> None:
    made, recorded = optimizer(), OptimizerSettings()
    for _ in range(2):
        recorded.record([made], [])
        before = made.state_dict()
        recorded.put_into([made.state_dict()])
        made.param_groups[0]["lr"] *= 0.5
        made.param_groups[1]["betas"] = (0.1, 0.2)
        made.param_groups[1]["added"] = 3
        states = [made.state_dict()]
        assert states != [before]
        recorded.put_into(states)
        assert states == [before]


def in_place(made: torch.optim.Optimizer) -> None:
    made.param_groups[0]["lr"].mul_(0.5)


def another_group(made: torch.optim.Optimizer) -> None:
    made.add_param_group({"params": [nn.Parameter(torch.ones(3))]})


@pytest.mark.parametrize(("change", "problem"), [(in_place, "in place"), (another_group, "parameter groups")])
def test_what_cannot_be_put_back_is_refused(change: Callable[[Any], None], problem: str) -> None:
    made, recorded = optimizer(lr=torch.tensor(0.1)), OptimizerSettings()
    recorded.record([made], [])
    change(made)
    with pytest.raises(ValueError, match=problem):
        recorded.put_into([made.state_dict()])
    recorded.record([made], [])
    recorded.put_into([made.state_dict()])


def test_a_state_dict_of_ones_own_without_groups_is_refused_only_when_they_have_changed() -> None:
    made, recorded = optimizer(), OptimizerSettings()
    recorded.record([made], [])
    recorded.put_into([{"own": 1}])
    made.param_groups[0]["lr"] *= 0.5
    with pytest.raises(ValueError, match="parameter groups"):
        recorded.put_into([{"own": 1}])


SCHEDULES: list[Callable[[Any], Any]] = [
    lambda made: StepLR(made, 3),
    lambda made: LambdaLR(made, lambda step: 1.0),
    lambda made: CosineAnnealingLR(made, 5),
    lambda made: OneCycleLR(made, 0.1, 5),
    ReduceLROnPlateau,
    lambda made: SequentialLR(made, [StepLR(made, 3), StepLR(made, 1)], [2]),
    lambda made: ChainedScheduler([StepLR(made, 3), StepLR(made, 1)]),
]


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_schedule_that_was_stepped_since_is_refused(make: Callable[[Any], Any]) -> None:
    made, recorded = optimizer(), OptimizerSettings()
    schedule = make(made)
    for _ in range(3):
        recorded.record([made], [schedule])
        recorded.put_into([made.state_dict()])
        schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))
        with pytest.raises(ValueError, match="schedule was stepped"):
            recorded.put_into([made.state_dict()])
