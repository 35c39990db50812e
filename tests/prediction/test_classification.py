"""Labels and numbers in what models return."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkit.data.text.tokenizers import train_tokenizer
from darkit.errors import ConfigError, ModelError
from darkit.prediction.classification import Label, label_texts, read_predictions
from darkit.runs.tasks import CLASSIFICATION, REGRESSION
from tests.core.parts import STORY

LOGITS = torch.tensor([[0.0, 2.0], [3.0, 0.0]])


@pytest.mark.parametrize("output", [LOGITS, {"logits": LOGITS}, (LOGITS, None), SimpleNamespace(logits=LOGITS)])
def test_a_label_is_the_likeliest_with_its_probability(output: Any) -> None:
    first, second = read_predictions(output, CLASSIFICATION, ["cat", "dog"])
    assert first == Label("dog", pytest.approx(float(torch.sigmoid(torch.tensor(2.0)))))
    assert second.label == "cat"
    assert [item.label for item in read_predictions(output, CLASSIFICATION, [])] == [1, 0]


def test_numbers_are_numbers_and_several_a_list() -> None:
    assert read_predictions(torch.tensor([[1.0], [2.0]]), REGRESSION, []) == [1.0, 2.0]
    assert read_predictions(torch.tensor([1.0, 2.0]), REGRESSION, []) == [1.0, 2.0]
    assert read_predictions(LOGITS, REGRESSION, []) == LOGITS.tolist()


@pytest.mark.parametrize("output", [torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, 2, 2)])
def test_logits_that_do_not_fit_the_labels_are_told_so(output: Tensor) -> None:
    with pytest.raises(ModelError, match=r"returns logits \(rows, 2\), but the model returned float32"):
        read_predictions(output, CLASSIFICATION, ["cat", "dog"])


def test_what_has_no_rows_is_told_so() -> None:
    with pytest.raises(ModelError, match="no prediction for each row"):
        read_predictions(torch.tensor(1.0), REGRESSION, [])


class Short(nn.Module):
    """Says ``short`` of texts of fewer than 4 tokens, padding not counted, and remembers the longest."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(context_length=8)
        self.longest = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.longest = max(self.longest, input_ids.shape[1])
        counts = attention_mask.sum(1) - 2  # [CLS] and [SEP]
        return torch.stack([counts - 3.5, 3.5 - counts], 1)


def test_texts_are_labelled_whatever_the_length_of_the_others() -> None:
    tokenizer, model = train_tokenizer([STORY], "wordpiece", 160), Short()
    texts = ["the sea", "the ship sails over", "sea", "the ship sails over the sea is wide open"] * 40
    found = list(label_texts(model, tokenizer, texts, CLASSIFICATION, ["long", "short"]))
    assert [item.label for item in found] == ["short", "long", "short", "long"] * 40
    assert model.longest == 8


def test_a_text_without_a_token_is_refused_where_nothing_stands_around_it() -> None:
    tokenizer = train_tokenizer([STORY], "bpe", 300)
    with pytest.raises(ConfigError, match="The text '' has no token"):
        list(label_texts(Short(), tokenizer, ["a", ""], CLASSIFICATION, []))
