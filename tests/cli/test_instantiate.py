"""Model, data and loss from what their configs name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from darkit.cli.instantiate import make_choice, make_loss, make_model
from darkit.data import DataChoice
from darkit.errors import ConfigError, DataError, ModelError


class Remembers(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config


def test_a_model_without_a_config_remembers_what_it_was_made_of() -> None:
    model = make_model(OmegaConf.create({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}))
    assert model.hparams == {"in_features": 3, "out_features": 2, "bias": True, "device": None, "dtype": None}


def test_a_model_with_a_config_is_left_alone() -> None:
    model = make_model(OmegaConf.create({"_target_": f"{__name__}.Remembers", "config": {"sizes": [1, 2]}}))
    assert not hasattr(model, "hparams")
    assert type(model.config) is dict
    assert type(model.config["sizes"]) is list


def test_data_may_be_a_choice_or_anything_that_fit_takes() -> None:
    assert isinstance(make_choice(OmegaConf.create({"_target_": "darkit.data.regression", "samples": 5})), DataChoice)
    choice = make_choice(OmegaConf.create({"_target_": "builtins.dict", "train": [1], "val": [2]}))
    assert choice.train == {"train": [1], "val": [2]}


def test_an_error_of_darkits_own_passes_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^samples must be at least 1, not 0\.$"):
        make_choice(OmegaConf.create({"_target_": "darkit.data.regression", "samples": 0}))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("mse_loss", F.mse_loss), ("torch.nn.functional.l1_loss", F.l1_loss), (f"{__name__}.make_loss", make_loss)],
)
def test_a_loss_is_a_function_by_name(given: str, wanted: object) -> None:
    assert make_loss(given) is wanted
    assert make_loss(None) is None


def test_a_loss_may_be_a_class_with_or_without_settings() -> None:
    assert isinstance(make_loss("torch.nn.MSELoss"), nn.MSELoss)
    loss = make_loss(OmegaConf.create({"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.5}))
    assert loss is not None
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(loss(logits, target), F.cross_entropy(logits, target, label_smoothing=0.5))


@pytest.mark.parametrize("settings", [None, 3, [], {}, {"size": 3}])
def test_a_config_without_a_target_is_refused(settings: Any) -> None:
    given = OmegaConf.create(settings) if isinstance(settings, dict | list) else settings
    for make in (make_model, make_choice):
        with pytest.raises(ConfigError, match=r"needs a _target_, such as _target_: package\.module\.Class\.$"):
            make(given)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"_target_": "nowhere.Model"}, r"^The model nowhere\.Model cannot be created: No module named 'nowhere'$"),
        (
            {"_target_": f"{__name__}.Remember"},
            r"has no 'Remember'\. Did you mean 'Remembers'\? Available: Remembers, ",
        ),
        ({"_target_": "torch.nn.Linear", "widht": 3}, r"cannot be created: .*unexpected keyword argument 'widht'$"),
        ({"_target_": "torch.nn.Linear"}, r"cannot be created: .*missing 2 required positional arguments"),
        (
            {"_target_": "torch.nn.LSTM", "input_size": 2, "hidden_size": "x"},
            r"be created: hidden_size should be",
        ),
        ({"_target_": "torch.__version__"}, r"cannot be created: Expected a callable target"),
        (
            {"_target_": "operator.truediv", "_args_": [1, 0]},
            r"be created: ZeroDivisionError: division by zero$",
        ),
    ],
)
def test_what_cannot_be_made_is_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        make_model(OmegaConf.create(settings))
    assert "\n" not in str(refused.value)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^The model builtins\.list is a list, not a torch\.nn\.Module\.$"):
        make_model(OmegaConf.create({"_target_": "builtins.list"}))


@pytest.mark.parametrize("name", ["nope", "nowhere.loss", "torch.nn.Nope", ""])
def test_a_loss_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Unknown loss '{name}': "):
        make_loss(name)
