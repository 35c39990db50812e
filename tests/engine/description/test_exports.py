"""The exported model, config and tokenizer of all kinds."""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
import tokenizers
import torch
import transformers
from torch import Tensor, nn

import darkit
from darkit.core import TrainerConfig
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.errors import ConfigError, ReproductionWarning
from tests.engine.parts import MLP, LossMLP, made, run_names, train, xy


class Configured(LossMLP):
    """Has any config as an attribute."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


@dataclass
class Annotated:
    width: int = 4
    sizes: tuple[int, ...] = (1, 2)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class WithClassAttributes(Annotated):
    device = "cuda"
    lr = 1e-3
    _private = 1

    def method(self) -> None: ...

    @property
    def twice(self) -> int:
        return 2 * self.width


class Pydantic(pydantic.BaseModel):
    width: int = 4
    names: list[str] = ["a"]


class Plain:
    width = 4

    def __init__(self) -> None:
        self.depth = 2


CONFIGS = {
    "dataclass": (Annotated(), "dataclass", {"width": 4, "sizes": [1, 2], "options": {}}),
    "class attributes": (
        WithClassAttributes(width=5),
        "dataclass",
        {"width": 5, "sizes": [1, 2], "options": {}, "device": "cuda", "lr": 1e-3},
    ),
    "pydantic": (Pydantic(width=7), "pydantic", {"width": 7, "names": ["a"]}),
    "plain object": (Plain(), "object", {"width": 4, "depth": 2}),
    "namespace": (SimpleNamespace(width=4), "object", {"width": 4}),
    "argparse": (argparse.Namespace(width=4), "object", {"width": 4}),
    "dict": ({"width": 4, "path": Path("x"), "dtype": torch.float32}, "dict", None),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_kind_of_config_is_exported_with_its_values(kind: str) -> None:
    config, expected_kind, values = CONFIGS[kind]
    run = train(made(Configured, config=config), xy())
    assert run.info["model"]["config_kind"] == expected_kind
    if values is None:
        values = {"width": 4, "path": "x", "dtype": "torch.float32"}
    assert run.config == values
    if expected_kind != "dict":
        assert run.info["model"]["config_class"].endswith(type(config).__qualname__)


def test_a_transformers_config_is_exported_through_its_to_dict() -> None:
    config = transformers.GPT2Config(n_layer=3)
    description = describe_model(Configured(config))
    assert description.kind == "transformers"
    assert description.values["n_layer"] == 3
    assert description.values == json.loads(json.dumps(description.values))


def test_a_dataclass_that_can_turn_into_a_dict_stays_a_dataclass() -> None:
    @dataclass
    class Own:
        width: int = 4

        def to_dict(self) -> dict[str, int]:
            return {"other": 1}

        @classmethod
        def from_dict(cls, values: dict[str, int]) -> Own:
            return cls()

    description = describe_model(Configured(Own()))
    assert (description.kind, description.values) == ("dataclass", {"width": 4})


def test_without_a_config_known_constructor_arguments_are_exported() -> None:
    run = train(made(MLP, hidden=6), xy())
    assert run.info["model"]["config_kind"] == "arguments"
    assert run.config == {"width": 4, "hidden": 6}


def test_recorded_hyperparameters_are_the_arguments() -> None:
    class Recorded(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.layer = nn.Linear(size, size)
            self.hparams = {"size": size}

    description = describe_model(Recorded(3))
    assert (description.kind, description.values) == ("arguments", {"size": 3})


class Unknown(nn.Module):
    """Its size is unknown."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.layer(x) - y).square().mean()


class Misleading(Unknown):
    """Has an attribute of the argument's name with another value."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size + 1


class Raising(Unknown):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = "no size"


@pytest.mark.parametrize("model", [Unknown(4), Misleading(4), Raising(4)], ids=["unknown", "misleading", "raising"])
def test_unknown_arguments_are_not_guessed_and_the_run_warns(model: nn.Module) -> None:
    with pytest.warns(ReproductionWarning, match=f"No config of {type(model).__name__} .* model=") as caught:
        run = train(model, xy())
    assert len(caught) == 1
    assert run.config == {}
    assert run.info["model"]["config_kind"] == "none"
    assert (run.path / "config.json").read_text() == "{}\n"


def test_asking_for_the_arguments_does_not_move_the_random_generator() -> None:
    model = made()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    describe_model(model)
    assert torch.equal(torch.rand(2), expected)


def test_the_trainers_config_is_exported_with_un_annotated_values_of_a_subclass() -> None:
    class Mine(TrainerConfig):
        device = "cpu"
        lr = 0.5
        max_step = 2
        word = "x"

    values = train(made(), xy(), config=Mine()).trainer_config
    assert (values["device"], values["lr"], values["word"], values["betas"]) == ("cpu", 0.5, "x", [0.9, 0.999])


def test_the_source_of_the_models_class_is_kept_for_people() -> None:
    source = (train(made(), xy()).path / "model.py").read_text()
    assert source.startswith("class MLP(nn.Module):")


def test_a_class_made_in_an_interpreter_has_no_source_and_trains_all_the_same(python: str, home: Path) -> None:
    code = (
        "import torch, darkit\nfrom torch import nn\n"
        "class M(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.w = nn.Linear(1, 1)\n"
        "    def forward(self, x): return self.w(x).mean()\n"
        "print(darkit.fit(M(), (torch.ones(4, 1),), max_step=2, device='cpu').name)\n"
    )
    environment = {"DARWIN_KIT_HOME": str(home), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=True)
    run = darkit.load(done.stdout.strip())
    assert run.info["model"]["class"] == "__main__.M"
    assert not (run.path / "model.py").exists()


def word_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1, "中": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def test_tokenizers_of_every_kind_become_one_tokenizer_json(tmp_path: Path) -> None:
    plain = word_tokenizer()
    path = tmp_path / "somewhere.json"
    plain.save(str(path))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain)
    for given in (plain, path, str(path), fast):
        run = train(made(), xy(), tokenizer=given)
        again = tokenizers.Tokenizer.from_file(str(run.path / "tokenizer.json"))
        assert again.encode("a 中 b").ids == plain.encode("a 中 b").ids == [0, 2, 1]
        if given is fast:
            loaded = transformers.PreTrainedTokenizerFast.from_pretrained(run.path / "tokenizer")
            assert loaded("a 中")["input_ids"] == [0, 2]


@pytest.mark.parametrize("wrong", [3, "/no/such/tokenizer.json", object()])
def test_an_invalid_tokenizer_is_refused_and_leaves_nothing(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer must be a tokenizers.Tokenizer"):
        train(made(), xy(), tokenizer=wrong)
    assert run_names() == []


def test_an_invalid_tokenizer_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for text in ("not json", "{}", "[1]"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"tokenizer\.json is not a valid tokenizer file"):
            train(made(), xy(), tokenizer=path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not a valid tokenizer file"):
        train(made(), xy(), tokenizer=path)
    assert run_names() == []


def test_exports_are_written_to_a_given_folder_without_a_run(tmp_path: Path) -> None:
    write_exports(tmp_path, made(), None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.py"]
