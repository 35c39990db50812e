"""The robust z-score of a loss, and which step is a spike."""

from __future__ import annotations

import random
from typing import Any

import lightning
import pytest
import torch
from scipy import stats

from darkit.engine.callbacks.loss_spike import LossSpike, LossSpikeGuard, robust_score
from darkit.errors import ConfigError
from tests.engine.callbacks.stock import Foreign, stock_fit


def test_the_score_is_the_distance_from_the_median_in_scipys_robust_deviations() -> None:
    generator = random.Random(0)
    for count in (4, 5, 64):
        values = [generator.gauss(3, 1) for _ in range(count)]
        median, score = robust_score(9.0, values)
        deviation = stats.median_abs_deviation(values, scale=1 / 1.4826)
        assert score == pytest.approx((9.0 - median) / deviation, rel=1e-12)
    assert robust_score(9.0, [1.0, 1.0, 1.0, 2.0]) == (1.0, 0.0)


def guard_of(trainer: lightning.Trainer, losses: list[float], react: Any) -> LossSpikeGuard:
    guard = LossSpikeGuard(window=4, react=react)
    for step, loss in enumerate(losses, 1):
        guard.on_step(trainer, None, {"loss": torch.tensor(loss)}, step)  # type: ignore[arg-type]
    return guard


@pytest.fixture(scope="module")
def trainer() -> lightning.Trainer:
    return lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def test_only_a_loss_far_above_a_full_window_is_a_spike(trainer: lightning.Trainer) -> None:
    found: list[LossSpike] = []
    react = lambda spike, rewinds: not found.append(spike)  # noqa: E731
    guard_of(trainer, [1.0, 99.0, 1.2, 0.9], react)  # too few before it
    guard_of(trainer, [1.0, 1.1, 1.2, 0.9, -99.0, float("nan"), float("inf")], react)
    assert found == []
    guard_of(trainer, [1.0, 1.1, 1.2, 0.9, 9.0, 1.0], react)
    assert [(spike.step, spike.noticed, spike.loss, spike.losses[-1]) for spike in found] == [
        (5, 5, 9.0, pytest.approx(0.9))
    ]


def test_one_that_was_not_dealt_with_is_told_again_when_a_resumed_training_starts(trainer: lightning.Trainer) -> None:
    told: list[tuple[int, int]] = []

    def react(spike: LossSpike, rewinds: int) -> bool:
        told.append((spike.step, rewinds))
        return False

    state = guard_of(trainer, [1.0, 1.1, 1.2, 0.9, 9.0], react).state_dict()
    resumed = LossSpikeGuard(window=4, react=react)
    resumed.load_state_dict(state | {"rewinds": 3})
    resumed.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert told == [(5, 0), (5, 3)]
    assert resumed.state_dict() == state | {"rewinds": 3}


def test_alone_it_warns(caplog: pytest.LogCaptureFixture) -> None:
    class Jumping(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            found = super().training_step(batch, batch_idx)
            return {"loss": found["loss"] * (1e6 if len(self.losses) == 6 else 1)}

    stock_fit(Jumping(), LossSpikeGuard(window=4))
    assert "Loss spike at step 6" in caplog.text


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold must be above 0, not 0"):
        LossSpikeGuard(0)
    with pytest.raises(ValueError, match="window must be a whole number of at least 4, not 3"):
        LossSpikeGuard(window=3)
