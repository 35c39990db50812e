"""Models and data of other people are trained, resumed and predicted by name, untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import pytest
import snntorch
import torch
import torch.nn.functional as F
import transformers
from snntorch import utils
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

import darkit
from darkit.core import Predicter
from darkit.data import labelled_text, masked_text, text_files, train_tokenizer
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.prediction.evaluation import evaluate_run
from darkit.runs.checkpoints import find_checkpoint

TEXTS = [
    {"text": f"The {word} of the file is read by the {other} of the loop."} for word in "abcdefgh" for other in "xyz"
]


def fast_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    backend = train_tokenizer([row["text"] for row in TEXTS], kind, 300)
    if kind == "wordpiece":
        names = {use: f"[{use.upper()}]" for use in ("pad", "unk", "cls", "sep", "mask")}
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, **{f"{use}_token": name for use, name in names.items()}
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def gpt2(vocabulary: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=vocabulary, **sizes))


def bert(vocabulary: int, kind: Callable[..., nn.Module], **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return kind(transformers.BertConfig(vocab_size=vocabulary, max_position_embeddings=32, **sizes, **settings))


def assert_goes_on_exactly(make: Callable[[], nn.Module], *data: Any, **settings: Any) -> None:
    """Train six steps in one go and in two, and compare all of both."""
    common: dict[str, Any] = {
        "device": "cpu",
        "batch_size": 4,
        "save_step_interval": 3,
        "tensorboard": False,
        **settings,
    }
    straight = darkit.fit(make(), *data, name="straight", max_step=6, **common)
    darkit.fit(make(), *data, name="broken", max_step=3, **common)
    broken = darkit.fit(make(), *data, name="broken", max_step=6, resume=True, **common)
    one, other = (read_checkpoint(find_checkpoint(run.path, 6)) for run in (straight, broken))
    assert list(differences(one, other)) == []
    assert straight.log()["train_loss"].to_list() == broken.log()["train_loss"].to_list()


def test_gpt2_with_a_fast_tokenizer_learns_goes_on_and_streams() -> None:
    tokenizer = fast_tokenizer("bpe")
    data = text_files(TEXTS, context_length=16, tokenizer=tokenizer, val_fraction=0.2, named=True)
    make = lambda: gpt2(data.settings["vocab_size"])  # noqa: E731 - one for each training
    assert_goes_on_exactly(make, data.train, data.val, tokenizer=tokenizer)
    predicter = Predicter.from_pretrained("straight", "cpu")
    assert isinstance(predicter.tokenizer, PreTrainedTokenizerFast)
    options = {"max_new_tokens": 12, "temperature": 0}
    text = "".join(predicter.predict("The a of", **options))
    ids = torch.tensor([tokenizer.encode("The a of")])
    wanted = predicter.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert text == tokenizer.decode(wanted[0, ids.shape[1] :], skip_special_tokens=True)


def test_bert_with_a_fast_tokenizer_learns_goes_on_and_fills_masks() -> None:
    tokenizer = fast_tokenizer("wordpiece")
    data = masked_text(TEXTS, tokenizer=tokenizer, context_length=32, val_fraction=0.2)
    make = lambda: bert(data.settings["vocab_size"], transformers.BertForMaskedLM)  # noqa: E731
    assert_goes_on_exactly(make, data.train, data.val, tokenizer=tokenizer)
    places = Predicter.from_pretrained("straight", "cpu").predict("The [MASK] of the [MASK] is read.", top=3)
    assert [len(candidates) for candidates in places] == [3, 3]
    assert all(0 < candidate.probability < 1 for candidates in places for candidate in candidates)


def test_bert_classifies_texts_and_names_the_labels() -> None:
    rows = [{"text": f"{word} {number}", "label": word} for number in range(30) for word in ("cat", "dog")]
    data = labelled_text(rows, vocab_size=200, context_length=16)
    make = lambda: bert(data.settings["vocab_size"], transformers.BertForSequenceClassification, num_labels=2)  # noqa: E731
    options = {"device": "cpu", "max_step": 60, "lr": 5e-3, "batch_size": 8}
    darkit.fit(make(), data.train, data.val, tokenizer=data.tokenizer, name="run", **options)
    found = Predicter.from_pretrained("run", "cpu").predict(["cat 7", "dog 9"])
    assert "cat" in str(found[0])
    assert "dog" in str(found[1])
    assert evaluate_run("run", data, device="cpu")["accuracy"] == 1


def numbers(count: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, generator=generator)
    return x, x.sum(1, keepdim=True)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(self.layer(x), y)


@pytest.mark.parametrize("format", ["torch", None])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_hugging_face_dataset_is_data(format: str | None, workers: int) -> None:
    x, y = numbers()
    dataset = datasets.Dataset.from_dict({"x": x.tolist(), "y": y.tolist()}).with_format(format)
    torch.manual_seed(0)
    initial = Linear().state_dict()

    def make() -> nn.Module:
        model = Linear()
        model.load_state_dict(initial)
        return model

    assert_goes_on_exactly(make, dataset, dataset, num_workers=workers)
    plain = darkit.fit(
        make(), [{"x": a, "y": b} for a, b in zip(x, y, strict=True)], device="cpu", batch_size=4, max_step=6
    )
    losses = (darkit.load("straight").log()["train_loss"].to_list(), plain.log()["train_loss"].to_list())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Spiking(nn.Module):
    """As snntorch's tutorials have it: neurons with hidden state, over ten steps of time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8),
            snntorch.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(8, 1),
            snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self.net)
        return torch.stack([self.net(x)[1] for _ in range(10)]).mean(0)


def test_an_snntorch_network_with_hidden_state_goes_on_and_predicts() -> None:
    torch.manual_seed(0)
    initial = Spiking().state_dict()

    def make() -> nn.Module:
        model = Spiking()
        model.load_state_dict(initial)
        return model

    assert_goes_on_exactly(make, numbers(), numbers(), loss=F.mse_loss, lr=1e-2)
    found = Predicter.from_pretrained("straight", "cpu", model=Spiking()).predict(numbers()[0])
    assert found.shape == (24, 1)


class Several(nn.Module):
    """Takes several inputs and returns a tuple."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.left, self.right = nn.Linear(3, width), nn.Linear(3, width)
        self.out = nn.Linear(width, 1)

    def forward(self, left: Tensor, right: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.left(left) + self.right(right)) * scale
        return self.out(hidden), hidden


def test_a_model_of_several_inputs_that_returns_a_tuple_goes_on_and_predicts() -> None:
    x, y = numbers()
    data = (x, x.flip(0), torch.ones(24, 1), y)
    torch.manual_seed(0)
    initial = Several().state_dict()

    def make() -> nn.Module:
        model = Several()
        model.load_state_dict(initial)
        return model

    def loss(outputs: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return F.mse_loss(outputs[0], target)

    assert_goes_on_exactly(make, data, data, loss=loss)
    output, hidden = Predicter.from_pretrained("straight", "cpu").predict(data[:3])
    assert (output.shape, hidden.shape) == ((24, 1), (24, 4))
