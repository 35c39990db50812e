"""The spiking classifier learns real digits in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import darkit
from darkit.models.snn import SNN, SNNConfig
from tests.cli.parts import done


def test_more_steps_of_time_let_a_weak_current_fire() -> None:
    answers = []
    for steps in (1, 10):
        torch.manual_seed(0)
        model = SNN(SNNConfig(input_size=4, output_size=3, hidden_sizes=[6], time_steps=steps, beta=0.9))
        answers.append([model(torch.full((1, 4), strength)) for strength in (0.0, 0.6)])
    assert torch.equal(*answers[0]), "no neuron has fired yet"
    assert not torch.equal(*answers[1])


def test_every_parameter_learns_through_all_layers() -> None:
    torch.manual_seed(0)
    model = SNN(SNNConfig(hidden_sizes=(32, 16)))
    model(torch.rand(8, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_default_training_tells_95_of_100_digits(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", "model=snn", "name=run")
    assert darkit.load("run").log()["val_accuracy"].drop_nulls()[-1] >= 0.95


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_steps": 0}, "time_steps must be a whole number, at least 1, not 0"),
        ({"hidden_sizes": ()}, "hidden_sizes must have at least one layer of neurons"),
        ({"beta": 1}, "beta must be a number from 0 to below 1, not 1"),
        ({"threshold": -1}, "threshold must be a number above 0, not -1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SNNConfig(**changes)
