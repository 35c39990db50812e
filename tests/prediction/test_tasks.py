"""What a run's model is for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from darkit.data.text.tokenizers import train_tokenizer
from darkit.prediction.tasks import column_names, label_names, task_of
from darkit.runs import Run
from tests.core.parts import STORY, byte_tokenizer


def run_with(folder: Path, **data: Any) -> Run:
    (folder / "run.json").write_text(json.dumps({"data": data}))
    return Run(folder)


@pytest.mark.parametrize(
    ("data", "task"),
    [
        ({"kind": "TokenWindows", "task": "masked"}, "masked"),
        ({"kind": "TokenWindows", "task": "unknown"}, "causal"),
        (
            {"kind": "TensorDataset", "sample_parts": [{"type": "str"}, {"dtype": "int32", "shape": []}]},
            "classification",
        ),
        ({"kind": "TokenWindows"}, "causal"),
        ({"kind": "TokenStream"}, "causal"),
        ({"kind": "MaskedTokens"}, "masked"),
        ({"kind": "SentencePairs"}, "masked"),
        ({"kind": "TextPairs"}, "seq2seq"),
        ({"kind": "LabelledTexts", "label_names": ["a", "b"]}, "classification"),
        ({"kind": "LabelledTexts"}, "regression"),
        ({"kind": "TableRows", "label_names": ["a", "b"]}, "classification"),
        ({"kind": "TensorDataset", "sample": "(float32[4], int64[])"}, "classification"),
        ({"kind": "TensorDataset", "sample": "(float32[4], float32[1])"}, "regression"),
        ({}, "regression"),
    ],
)
def test_the_data_tells_what_was_learnt(data: dict[str, Any], task: str, tmp_path: Path) -> None:
    assert task_of(run_with(tmp_path, **data), nn.Linear(4, 2), None) == task


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("BertForMaskedLM", "masked"),
        ("BertForSequenceClassification", "classification"),
        ("T5ForConditionalGeneration", "seq2seq"),
        ("GPT2LMHeadModel", "causal"),
        ("LlamaForCausalLM", "causal"),
        ("Anything", "causal"),
    ],
)
def test_the_name_of_a_class_of_transformers_tells_it_for_data_of_ones_own(
    name: str, task: str, tmp_path: Path
) -> None:
    model = type(name, (nn.Linear,), {})(2, 2)
    assert task_of(run_with(tmp_path), model, byte_tokenizer()) == task
    model.config = SimpleNamespace(num_labels=1)
    assert task_of(run_with(tmp_path), model, byte_tokenizer()) == ("regression" if task == "classification" else task)


def test_a_model_that_takes_masks_and_has_no_cache_fills_masks(tmp_path: Path) -> None:
    class Reading(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return input_ids + attention_mask

    run, words = run_with(tmp_path), train_tokenizer([STORY], "wordpiece", 160)
    assert task_of(run, Reading(), words) == "masked"
    assert task_of(run, Reading(), byte_tokenizer()) == "causal"

    class Writing(Reading):
        def make_cache(self, batch_size: int = 1) -> None:
            pass

    assert task_of(run, Writing(), words) == "causal"


def test_labels_are_those_of_the_run_or_of_the_models_config(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    assert label_names(run_with(tmp_path), model) == []
    model.config = SimpleNamespace(id2label={1: "no", 0: "yes"})  # type: ignore[assignment]
    assert label_names(run_with(tmp_path), model) == ["yes", "no"]
    assert label_names(run_with(tmp_path, label_names=["b", "a"]), model) == ["b", "a"]
    model.config = SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})  # type: ignore[assignment]
    assert label_names(run_with(tmp_path), model) == []


@pytest.mark.parametrize("data", [{"features": "x", "target": 3}, {}, {"features": None}])
def test_columns_that_are_not_known_are_none(data: dict[str, Any], tmp_path: Path) -> None:
    assert column_names(run_with(tmp_path, **data)) == ([], [])
    (tmp_path / "run.json").write_text('{"data": 3}')
    assert column_names(Run(tmp_path)) == ([], [])
