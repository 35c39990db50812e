"""The regression: of the wanted shape, the same for the same seed, and something to learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darkit.data import regression
from darkit.data.objectives.labels import regression_loss
from darkit.errors import DataError


def test_it_has_the_shapes_and_numbers_that_were_asked_for() -> None:
    choice = regression(input_size=3, output_size=5, samples=70, val_samples=20)
    assert [tuple(part.shape) for part in (*choice.train, *choice.val)] == [(70, 3), (70, 5), (20, 3), (20, 5)]
    assert choice.loss is regression_loss
    assert choice.tokenizer is None


def test_the_seed_decides_all_of_it() -> None:
    one, same, other = regression(seed=1), regression(seed=1), regression(seed=2)
    assert all(map(torch.equal, (*one.train, *one.val), (*same.train, *same.val)))
    assert one.baselines == same.baselines
    assert not torch.equal(one.train[1], other.train[1])


def test_making_it_moves_no_global_generator() -> None:
    state = torch.get_rng_state()
    regression()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_targets_are_about_as_large_as_the_docs_say_and_the_noise_is_what_was_asked_for() -> None:
    quiet, noisy = regression(noise=0.0, seed=3), regression(noise=0.5, seed=3)
    assert torch.equal(quiet.train[0], noisy.train[0])
    assert 0.4 < quiet.train[1].std() < 2
    difference = torch.cat([noisy.train[1] - quiet.train[1], noisy.val[1] - quiet.val[1]])
    assert difference.std().item() == pytest.approx(0.5, rel=0.05)


def test_the_baseline_is_the_error_of_the_mean_on_the_validation_part() -> None:
    choice = regression(samples=100, val_samples=40)
    mean = choice.train[1].mean(dim=0)
    wanted = ((choice.val[1] - mean) ** 2).mean().item()
    assert choice.baselines == {"always the mean": pytest.approx(wanted, rel=1e-5)}


def test_a_small_network_beats_the_mean_by_far() -> None:
    torch.manual_seed(0)
    choice = regression()
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(model(choice.train[0]), choice.train[1]).backward()
        optimizer.step()
    assert F.mse_loss(model(choice.val[0]), choice.val[1]).item() < 0.5 * choice.baselines["always the mean"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"input_size": 0}, "input_size must be at least 1, not 0."),
        ({"output_size": -1}, "output_size must be at least 1, not -1."),
        ({"samples": 0}, "samples must be at least 1, not 0."),
        ({"val_samples": 0}, "val_samples must be at least 1, not 0."),
        ({"noise": -0.5}, "noise must be at least 0, not -0.5."),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as refused:
        regression(**wrong)
    assert str(refused.value) == said
