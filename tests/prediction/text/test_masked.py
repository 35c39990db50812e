"""Hidden words, found by a masked model."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from darkit.data.text.tokenizers import train_tokenizer
from darkit.errors import ConfigError, DataError, ModelError
from darkit.prediction.text.masked import Candidate, fill_masks
from tests.core.parts import STORY, byte_tokenizer


@cache
def words() -> Tokenizer:
    return train_tokenizer([STORY], "wordpiece", 160)


class Expecting(nn.Module):
    """Takes ``sea`` to be the likeliest everywhere, then ``ship``, and special tokens before both."""

    def __init__(self, context: int = 16) -> None:
        super().__init__()
        self.config = SimpleNamespace(context_length=context)
        self.bias = nn.Parameter(torch.zeros(words().get_vocab_size()))
        self.seen: list[int] = []
        with torch.no_grad():
            for name, value in (("[PAD]", 9.0), ("sea", 5.0), ("ship", 4.0)):
                self.bias[words().token_to_id(name)] = value

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        self.seen = input_ids[0].tolist()
        assert attention_mask.shape == input_ids.shape
        return {"logits": self.bias.expand(*input_ids.shape, -1)}


def test_the_likeliest_words_come_first_for_each_place_and_special_tokens_are_none() -> None:
    model = Expecting()
    found = fill_masks(model, words(), "the [MASK] sails over the [MASK]", top=2)
    assert [[candidate.token for candidate in place] for place in found] == [["sea", "ship"]] * 2
    probabilities = model.bias.detach().softmax(0)
    assert found[0][0].probability == pytest.approx(float(probabilities[words().token_to_id("sea")]))


def test_the_model_sees_what_it_saw_in_training() -> None:
    model = Expecting()
    fill_masks(model, words(), "the [MASK] is wide")
    assert model.seen == words().encode("the [MASK] is wide").ids  # with [CLS] before and [SEP] behind


def test_a_model_of_transformers_that_also_tells_what_follows_what_is_asked_alike() -> None:
    class Two(Expecting):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            logits = super().forward(input_ids, attention_mask)["logits"]
            return {"prediction_logits": logits, "seq_relationship_logits": torch.zeros(1, 2)}

    assert fill_masks(Two(), words(), "the [MASK] is wide") == fill_masks(Expecting(), words(), "the [MASK] is wide")


def test_a_tokenizers_own_name_for_what_is_hidden_counts_too() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<mask>"])

    class Plain(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.arange(tokenizer.get_vocab_size()).float().expand(*tokens.shape, -1)

    for text in ("a <mask> b", "a [MASK] b"):
        ((candidate,),) = fill_masks(Plain(), tokenizer, text, top=1)
        assert candidate == Candidate(tokenizer.decode([tokenizer.get_vocab_size() - 2]), candidate.probability)
    with pytest.raises(ConfigError, match=r"has no \[MASK\] or <mask>: write"):
        fill_masks(Plain(), tokenizer, "nothing")


@pytest.mark.parametrize(
    ("text", "settings", "error", "said"),
    [
        ("nothing hidden", {}, ConfigError, r"The text has no \[MASK\]: write"),
        ("[MASK] " * 20, {}, ConfigError, "The text has 22 tokens, but the model sees at most 16"),
        ("[MASK]", {"top": 0}, ConfigError, "top must be at least 1"),
    ],
)
def test_what_cannot_be_filled_is_refused(
    text: str, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        fill_masks(Expecting(), words(), text, **settings)


def test_a_tokenizer_without_a_mask_token_and_a_model_without_logits_are_told_so() -> None:
    with pytest.raises(DataError, match="no mask token, which filling a text needs"):
        fill_masks(Expecting(), byte_tokenizer(), "a [MASK]")

    class Pooled(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(1, 4)

    with pytest.raises(ModelError, match="A masked model returns logits"):
        fill_masks(Pooled(), words(), "a [MASK]")
