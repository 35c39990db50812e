"""A model found again by its run's name."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

import darkit
from darkit.core import Predicter, Trainer
from darkit.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
    DeviceWarning,
    ModelError,
    NameInvalidError,
    RunNotFoundError,
)
from darkit.runs import base
from tests.core.models import Secretive
from tests.core.parts import Loop, LoopConfig, Net, NetConfig, byte_tokenizer, net, reciting, samples

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the run ``first``, saved at steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARWIN_KIT_HOME", str(folder))
        Loop(net(), LoopConfig(name="first", save_step_interval=2)).train(samples(24))
        yield folder


@pytest.fixture
def first(trained: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DARWIN_KIT_HOME", str(trained))
    return "first"


def weights(run: str, step: int) -> dict[str, Tensor]:
    content = torch.load(base() / run / f"iter-{step}-ckpt.pth", weights_only=True)
    return content["state_dict"]


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class Doubling(Predicter):
    """The guide's shape: an ``__init__`` and a ``get_model`` of its own."""

    def __init__(self, name: str, model: nn.Module, device: str = "cpu") -> None:
        super().__init__(name, model, device)

    @classmethod
    def get_model(cls, name: str, checkpoint: str | None = None) -> nn.Module:
        path = cls.get_checkpoint(name, checkpoint)
        model = Net(config=NetConfig(**cls.get_model_config_json(name)))
        model.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
        return model

    def predict(self, input: Tensor) -> Tensor:
        return 2 * self.model(input.to(self.device))


def test_the_base_class_alone_builds_the_model_with_its_latest_weights(first: str) -> None:
    predicter = Predicter.from_pretrained(first)
    assert type(predicter) is Predicter
    assert isinstance(predicter.model, Net)
    assert predicter.model.config == NetConfig()
    assert same(predicter.model, weights(first, 6))
    assert predicter.name == "first"


@pytest.mark.parametrize("wanted", ["iter-4-ckpt", "iter-4-ckpt.pth", "4", 4])
def test_a_checkpoint_is_named_by_its_file_or_its_step(first: str, wanted: str | int) -> None:
    assert same(Predicter.from_pretrained(first, checkpoint=wanted).model, weights(first, 4))
    assert same(Predicter.get_model(first, wanted), weights(first, 4))
    assert Predicter.get_checkpoint(first, wanted) == base() / "first" / "iter-4-ckpt.pth"


def test_name_and_checkpoint_in_one_work_wherever_a_name_does(first: str) -> None:
    reference = f"{first}:iter-2-ckpt"
    for cls in (Predicter, Doubling):
        predicter = cls.from_pretrained(reference)
        assert predicter.name == first
        assert same(predicter.model, weights(first, 2))
        assert same(cls.get_model(reference), weights(first, 2))
        assert cls.get_checkpoint(reference).name == "iter-2-ckpt.pth"
        assert cls.get_checkpoint(f"{first}:latest").name == "iter-6-ckpt.pth"
        assert cls.get_checkpoint(reference, "4").name == "iter-4-ckpt.pth"
        assert cls.get_model_config_json(reference) == {"inputs": 4, "hidden": 8}
        assert cls.get_trainer_config_json(reference)["save_step_interval"] == 2
        assert cls.get_tokenizer(reference) is None
    assert darkit.load(reference).name == first


def test_a_registered_predicter_is_built_for_models_of_its_class(first: str) -> None:
    Predicter.register("Net", Doubling)
    predicter = Predicter.from_pretrained(first, device="cpu")
    assert type(predicter) is Doubling
    x = torch.ones(2, 4)
    with torch.no_grad():
        assert torch.equal(predicter.predict(x), 2 * predicter.model(x))


def test_a_subclass_that_is_called_itself_is_not_replaced_by_the_registered_one(first: str) -> None:
    class Other(Doubling):
        pass

    Predicter.register("Net", Other)
    assert type(Doubling.from_pretrained(first)) is Doubling


def test_a_subclass_with_its_own_init_still_has_the_tokenizer_and_is_in_evaluation_mode(first: str) -> None:
    predicter = Doubling.from_pretrained(first)
    assert predicter.tokenizer is None
    assert not predicter.model.training
    assert predicter.device in ("cpu", "cuda", "mps")


def test_the_root_can_be_overridden(first: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class There(Predicter):
        @classmethod
        def get_root(cls) -> Path:
            return trained / "base"

    monkeypatch.setenv("DARWIN_KIT_HOME", str(trained / "nothing-here"))
    assert Predicter.get_root() == trained / "nothing-here" / "base"
    assert There.from_pretrained("first").name == "first"
    assert There.get_checkpoint("first").parent == trained / "base" / "first"


def test_the_older_home_variable_counts_too(first: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARWIN_KIT_HOME")
    monkeypatch.setenv("DSPIKE_HOME", str(trained))
    assert Predicter.get_root() == trained / "base"
    assert Predicter.from_pretrained("first").name == "first"


@pytest.mark.parametrize("wrong", [int, Doubling.get_model, Trainer])
def test_only_predicters_can_be_registered(wrong: Any) -> None:
    with pytest.raises(ModelError, match="Only subclasses of Predicter can be registered for 'Net'"):
        Predicter.register("Net", wrong)


# Prediction


def test_prediction_is_in_evaluation_and_inference_mode(first: str) -> None:
    class Looking(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = (self.training, torch.is_inference_mode_enabled())
            return super().forward(x)

    predicter = Predicter.from_pretrained(first, model=Looking(NetConfig()))
    predicter.model.train()
    output = predicter.predict(torch.ones(3, 4))
    assert predicter.model.seen == (False, True)
    assert output.shape == (3, 1)
    assert not output.requires_grad


def test_tuples_and_dicts_are_the_models_arguments(first: str) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale

    predicter = Predicter("first", Two())
    x, scale = torch.ones(2), torch.tensor(3.0)
    assert predicter.predict((x, scale)).tolist() == [3.0, 3.0]
    assert predicter.predict({"scale": scale, "x": x}).tolist() == [3.0, 3.0]


def test_text_for_a_model_without_a_tokenizer_is_refused(first: str) -> None:
    with pytest.raises(ConfigError, match="'first' has no tokenizer"):
        Predicter.from_pretrained(first).predict("some text")


def test_a_model_that_is_given_gets_the_weights(first: str) -> None:
    model = net(seed=9)
    assert Predicter.from_pretrained(f"{first}:4", model=model).model is model
    assert same(model, weights(first, 4))


def test_a_run_without_a_recorded_config_needs_the_model() -> None:
    class SecretLoop(Loop):
        pass

    with pytest.warns(UserWarning, match="model=, the model itself"):
        SecretLoop(Secretive(4), LoopConfig(name="secret")).train(samples(24))
    with pytest.raises(ModelError, match="pass the model itself as model="):
        Predicter.from_pretrained("secret")
    assert same(Predicter.from_pretrained("secret", model=Secretive(4)).model, weights("secret", 6))


@pytest.mark.parametrize("device", [None, "auto", "cpu", "cpu:0", torch.device("cpu")])
def test_a_device_may_be_named_in_every_usual_way(first: str, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    predicter = Predicter.from_pretrained(first, device)
    assert predicter.device == (str(device) if device not in (None, "auto") else "cpu")
    assert predicter.predict(torch.ones(1, 4)).device.type == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_becomes_the_cpu(first: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(DeviceWarning, match="'cuda' is not available"):
        assert Predicter.from_pretrained(first, device).device == "cpu"


def test_a_device_of_no_kind_is_refused(first: str) -> None:
    with pytest.raises(ConfigError, match="device must be one of auto, cpu, cuda, mps, not 'gpu'"):
        Predicter.from_pretrained(first, "gpu")


# What is not there, or does not fit


def test_a_missing_run_lists_what_there_is_nearest_first(first: str) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run 'frist' in .*\. Did you mean 'first'"):
        Predicter.from_pretrained("frist")


@pytest.mark.parametrize("name", ["", "../first", "a/b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(NameInvalidError):
        Predicter.from_pretrained(name)


@pytest.mark.parametrize("reference", ["first:3", "first:iter-3-ckpt"])
def test_a_missing_checkpoint_lists_what_there_is(first: str, reference: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no checkpoint .*iter-2-ckpt.*iter-6-ckpt"):
        Predicter.from_pretrained(reference)


def test_a_run_without_a_checkpoint_says_so() -> None:
    Loop(net(), LoopConfig(name="empty")).train([])
    with pytest.raises(CheckpointNotFoundError, match="has no checkpoint yet"):
        Predicter.from_pretrained("empty")


class Wider(nn.Module):
    """Another model than `Net`, with layers of the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1, bias=False), nn.Linear(1, 1))


def test_weights_of_another_class_are_refused_with_both_classes_and_the_first_differing_keys(first: str) -> None:
    model = Wider()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointMismatchError) as refused:
        Predicter.from_pretrained(first, model=model)
    text = str(refused.value)
    assert "tests.core.parts.Net" in text
    assert "tests.prediction.test_predicter.Wider" in text
    assert "'layers.3.weight' is missing" in text
    assert "'layers.2.bias' is unexpected" in text
    assert "and 1 more" in text
    assert same(model, before)


def test_a_shape_that_differs_is_named(first: str) -> None:
    with pytest.raises(CheckpointMismatchError, match=r"'layers\.0\.weight' has shape \(8, 4\) instead of \(8, 7\)"):
        Predicter.from_pretrained(first, model=Net(NetConfig(inputs=7)))


def test_a_damaged_checkpoint_is_refused() -> None:
    Loop(net(), LoopConfig(name="damaged", max_step=2)).train(samples(8))
    path = base() / "damaged" / "iter-2-ckpt.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointCorruptError, match="damaged"):
        Predicter.from_pretrained("damaged:2")


# Where the class comes from


def test_a_script_of_its_own_finds_the_class_by_its_recorded_path(python: str, first: str) -> None:
    program = """
    import torch
    from darkit.core import Predicter
    print(Predicter.from_pretrained("first:4", device="cpu").predict(torch.ones(1, 4)).item())
    """
    done = subprocess.run(
        [python, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=CHECKOUT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    expected = Predicter.from_pretrained("first:4", device="cpu").predict(torch.ones(1, 4)).item()
    assert float(done.stdout) == pytest.approx(expected)


# Text


@dataclass
class Spoken:
    tokenizer: Tokenizer
    text: str


@pytest.fixture
def spoken() -> Spoken:
    """A run called ``speaker`` of a model that recites a text."""
    tokenizer, text = byte_tokenizer(), "sea wind"
    with Trainer(reciting(tokenizer, text), tokenizer, LoopConfig(name="speaker")) as trainer:
        trainer.save_pretrained()
    return Spoken(tokenizer, text)


def test_a_prompt_streams_text(spoken: Spoken) -> None:
    predicter = Predicter.from_pretrained("speaker", device="cpu")
    pieces = predicter.predict("s", temperature=0, max_new_tokens=20)
    first_piece = next(pieces)
    assert spoken.text.startswith("s" + first_piece)
    assert ("s" + first_piece + "".join(pieces)).startswith(spoken.text)


def test_the_tokenizer_is_the_one_that_was_trained_with(spoken: Spoken) -> None:
    for tokenizer in (Predicter.from_pretrained("speaker").tokenizer, Predicter.get_tokenizer("speaker")):
        assert tokenizer.to_str() == spoken.tokenizer.to_str()


def test_a_tokenizer_file_may_be_given_by_its_path(spoken: Spoken, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    spoken.tokenizer.save(str(path))
    Loop(net(), tokenizer=str(path), config=LoopConfig(name="by-path")).train(samples(8))
    assert json.loads((base() / "by-path" / "tokenizer.json").read_text()) == json.loads(spoken.tokenizer.to_str())


def test_a_transformers_model_and_tokenizer_go_through_untouched() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), eos_token="!")
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 12, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    with Trainer(model, tokenizer, LoopConfig(name="gpt2")) as trainer:
        trainer.save_pretrained()
    predicter = Predicter.from_pretrained("gpt2", device="cpu")
    assert isinstance(predicter.model, GPT2LMHeadModel)
    assert predicter.model.config.n_positions == 12
    assert same(predicter.model, model.state_dict())
    assert predicter.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert predicter.tokenizer.eos_token == "!"
    told = ["".join(predicter.predict("the sea", seed=3, max_new_tokens=20)) for _ in range(2)]
    assert told[0] == told[1] != ""
