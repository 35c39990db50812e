"""The learning-rate range test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import darkit
from darkit.engine.lr_range import SMOOTHED, LrRange, limit_of, rate_of, rates_to_try, suggest
from darkit.errors import ConfigError
from tests.engine.parts import made, train, xy


def test_each_step_has_its_rate_and_the_smoothed_loss_is_the_debiased_average() -> None:
    test = LrRange(1e-4, 1e-2, 5)
    run = train(made(), xy(), max_step=5, log_step_interval=1, callbacks=[test], nan_policy="warn")
    log = run.log()
    assert log["lr"].to_list() == pytest.approx(np.geomspace(1e-4, 1e-2, 5), rel=1e-12)
    assert test.rates == log["lr"].to_list()
    assert log["log10_lr"].to_list() == pytest.approx([-4, -3.5, -3, -2.5, -2], rel=1e-12)
    average, wanted = 0.0, []
    for step, loss in enumerate(log["train_loss"], 1):
        average = 0.9 * average + 0.1 * loss
        wanted.append(average / (1 - 0.9**step))
    assert log[SMOOTHED].to_list() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_diverging_loss_ends_it(accumulated: int) -> None:
    test = LrRange(1e-3, 1e4, 200)
    settings: dict[str, Any] = {"optimizer": "sgd", "nan_policy": "warn", "gradient_accumulation_steps": accumulated}
    run = train(made(), xy(), max_step=200, callbacks=[test], **settings)
    assert 8 < run.details.step < 200
    assert len(test.rates) == run.details.step
    found = suggest(test.rates, test.losses)
    assert found is not None
    assert 1e-3 < found[0] < 10
    assert darkit.load(run.name).log()["lr"][-1] == rate_of(1e-3, 1e4, run.details.step - 1, 200)


def test_the_suggestions_are_the_steepest_fall_and_a_tenth_of_the_lowest_loss() -> None:
    rates = [float(rate) for rate in np.geomspace(1e-5, 1, 101)]
    logs = torch.tensor(rates).log10()
    losses = [float(loss) for loss in (3 - 2 * torch.sigmoid(4 * (logs + 3)) + 10 * torch.relu(logs + 1) ** 2)]
    found = suggest(rates, losses)
    assert found is not None
    assert found[0] == pytest.approx(1e-3, rel=0.1)
    assert found[1] == pytest.approx(1e-2, rel=0.3)
    assert suggest(rates, [*losses[:90], *[math.nan] * 11]) == found
    assert suggest(rates[:7], losses[:7]) is None
    assert suggest(rates, [1.0 + place for place in range(101)]) is None


@pytest.mark.parametrize(
    ("losses", "limit"),
    [([2.0, 1.0, 1.5], 4.0), ([-1.0, -1.5], 3.0), ([2.0, -1.0], 8.0), ([0.0, 0.0], 0.0), ([-3.0] * 9, 6.0)],
)
def test_a_loss_below_zero_has_not_diverged_at_once(losses: list[float], limit: float) -> None:
    assert limit_of(losses) == limit


def test_a_training_with_a_falling_loss_below_zero_is_tested_to_its_end() -> None:
    test = LrRange(1e-6, 1e-5, 20)
    train(made(), xy(), max_step=20, callbacks=[test], loss=lambda out, target: -1 - out.square().mean())
    assert len(test.rates) == 20


def test_several_learning_rates_are_refused() -> None:
    model = made()
    groups = [{"params": [weight], "lr": 10.0**-place} for place, weight in enumerate(model.parameters(), 1)]
    with pytest.raises(ConfigError, match=r"has 1 optimizer\(s\) with the learning rates 0\.0001, 0\.001"):
        train(model, xy(), max_step=2, callbacks=[LrRange(1e-6, 1e-5, 20)], optimizer=torch.optim.SGD(groups))


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_start_is_no_fall_and_the_range_stays_narrow(seed: int) -> None:
    rates = [rate_of(1e-7, 1, step, 100) for step in range(100)]
    noise = np.random.default_rng(seed).normal(0, 0.2, 100)
    noise[0] += 0.6  # the young average falls from it faster than from anything later
    average, losses = 0.0, []
    for step, (rate, error) in enumerate(zip(rates, noise, strict=True), 1):
        loss = 1 - 0.6 / (1 + (1e-3 / rate) ** 2) + 20 * max(rate - 0.1, 0) + float(error)
        average = 0.9 * average + 0.1 * loss
        losses.append(average / (1 - 0.9**step))
    found = suggest(rates, losses)
    assert found is not None
    assert 3e-4 < found[0] < 2e-2
    assert 1e-4 < found[1] < 2e-2


def test_noise_alone_suggests_nothing() -> None:
    rates = [rate_of(1e-7, 1, step, 100) for step in range(100)]
    average, losses = 0.0, []
    for step, loss in enumerate(np.random.default_rng(0).normal(1, 0.2, 100), 1):
        average = 0.9 * average + 0.1 * float(loss)
        losses.append(average / (1 - 0.9**step))
    assert suggest(rates, losses) is None


def test_a_range_of_more_than_two_decades_is_its_upper_end() -> None:
    assert rates_to_try(0.05, 0.001) == (0.001, 0.05)
    assert rates_to_try(1e-7, 0.02) == (0.02,)
