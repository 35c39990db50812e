"""The perceptron classifies real digits, and predicts them by its run's name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import darkit
from darkit.core import Predicter
from darkit.data.digits import digits
from darkit.models.mlp import MLP, MLPConfig
from tests.cli.parts import done


def test_a_sample_of_any_shape_is_flattened() -> None:
    model = MLP(MLPConfig(input_size=12, output_size=3, hidden_sizes=[5]))
    features = torch.randn(4, 3, 4)
    assert torch.equal(model(features), model(features.flatten(1)))
    assert model(features).shape == (4, 3)


def test_without_hidden_layers_it_is_linear() -> None:
    model = MLP(MLPConfig(input_size=2, output_size=1, hidden_sizes=()))
    one, other = torch.randn(2, 1, 2)
    torch.testing.assert_close(model(one + other) + model(torch.zeros(1, 2)), model(one) + model(other))


def test_digits_are_learnt_logged_with_their_accuracy_and_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", "model=mlp", "name=run", "trainer.max_step=200")
    run = darkit.load("run")
    assert run.log()["val_accuracy"].drop_nulls()[-1] > 0.9
    assert run.config["hidden_sizes"] == [128, 128]
    features, labels = digits().val[:]
    found = Predicter.from_pretrained("run", "cpu").predict(features).argmax(-1)
    assert (found == labels).float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_size": 0}, "input_size must be a whole number, at least 1, not 0"),
        ({"hidden_sizes": 128}, "hidden_sizes must be a list of whole numbers, not 128"),
        ({"hidden_sizes": (3, 0)}, r"hidden_sizes\[1\] must be a whole number, at least 1, not 0"),
        ({"activation": "relo"}, "activation must be one of relu, gelu, tanh, not 'relo'"),
        ({"dropout": 1}, "dropout must be a number from 0 to below 1, not 1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MLPConfig(**changes)
