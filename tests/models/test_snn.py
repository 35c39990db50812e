"""The spiking classifier learns real digits in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import darkit
from darkit.core import Predicter
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


def test_beta_and_threshold_are_learnt_and_predict_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("model.config.learn_beta=true", "model.config.learn_threshold=true", "model.config.surrogate=fast_sigmoid")
    done(capsys, "train", "model=snn", "name=run", "trainer.max_step=20", *words)
    state = Predicter.from_pretrained("run").model.state_dict()
    assert state["neurons.0.beta"] != 0.9
    assert state["neurons.0.threshold"] != 1.0


def test_without_learning_there_are_no_further_parameters_and_an_older_config_loads() -> None:
    assert SNNConfig(input_size=4, output_size=3, beta=0.5).surrogate == "atan"
    assert {name.partition(".")[0] for name in SNN(SNNConfig()).state_dict()} == {"layers", "head"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"surrogate": "step"}, "surrogate must be one of atan, fast_sigmoid, sigmoid, straight_through, not 'step'"),
        ({"learn_beta": 1}, "learn_beta must be true or false, not 1"),
        ({"time_steps": 0}, "time_steps must be a whole number, at least 1, not 0"),
        ({"hidden_sizes": ()}, "hidden_sizes must have at least one layer of neurons"),
        ({"beta": 1}, "beta must be a number from 0 to below 1, not 1"),
        ({"threshold": -1}, "threshold must be a number above 0, not -1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SNNConfig(**changes)
