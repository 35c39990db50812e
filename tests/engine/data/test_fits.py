"""Data that does not fit its model is refused in one sentence, before a run is created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from darkit.data import MaskedTokens, Masking, TokenRow
from darkit.data.text.specials import Specials
from darkit.engine.data.fits import check_fit, limits_of
from darkit.errors import BatchError, DataError
from darkit.models.gpt import GPT, GPTConfig
from tests.engine.parts import MLP, LossMLP, Numbers, made, run_names, train, xy

TINY = {"vocab_size": 10, "context_length": 8, "num_layers": 1, "num_heads": 1, "hidden_size": 8}


def gpt() -> GPT:
    return GPT(GPTConfig(**TINY))


def ids(largest: int = 9, length: int = 8, count: int = 6) -> tuple[Tensor, Tensor]:
    tokens = torch.zeros(count, length, dtype=torch.int64)
    tokens[-1, -1] = largest
    return tokens, torch.zeros_like(tokens)


class Told(Dataset[Any]):
    """Has a vocabulary and a context length, and counts how often samples are loaded."""

    def __init__(self, vocabulary: int = 10, context_length: int = 8) -> None:
        self.vocabulary, self.context_length = vocabulary, context_length
        self.asked = 0

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.asked += 1
        return torch.zeros(8, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)


REFUSED: dict[str, tuple[Any, str]] = {
    "vocabulary": (
        Told(vocabulary=11),
        "The vocabulary of the training data has 11 tokens, but the model's has 10: give the model a vocab_size of at "
        "least 11.",
    ),
    "context": (
        Told(context_length=9),
        "The training data has sequences of 9 tokens, but the model takes at most 8: use shorter windows, or give the "
        "model a context_length of at least 9.",
    ),
    "tensors with a large id": (
        ids(10),
        "The training data has the id 10, but the model's vocabulary has 10 tokens (vocab_size): ids must lie between "
        "0 and 9.",
    ),
    "tensors with a negative id": (ids(-1), "has the id -1, but"),
    "a large target": (ids()[::-1][:1] + ids(12)[:1], "has the id 12, but"),
    "long tensors": (ids(length=9), "has sequences of 9 tokens, but"),
    "a list of samples": (list(zip(*ids(10), strict=True)), "has the id 10, but"),
    "a list of dicts": ([{"tokens": ids(11)[0][-1], "targets": ids()[1][0]}], "has the id 11, but"),
    "a list of dicts of lists": ([{"input_ids": [0, 12], "labels": [0, 0]}], "has the id 12, but"),
    "arrays": ([(numpy.array([0, 13]), numpy.array([0, 0]))], "has the id 13, but"),
    "somebody's loader": (DataLoader(list(zip(*ids(10), strict=True)), batch_size=2), "has the id 10, but"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_does_not_fit_is_refused_and_leaves_nothing(case: str) -> None:
    data, said = REFUSED[case]
    with pytest.raises(DataError) as refused:
        train(gpt(), data, name="x")
    assert said in str(refused.value)
    assert run_names() == []


def test_validation_data_is_looked_at_too() -> None:
    with pytest.raises(DataError, match=r"^The validation data has the id 10, but"):
        train(gpt(), ids(), ids(10), name="x")
    assert run_names() == []


def test_names_that_the_model_does_not_accept_are_refused() -> None:
    tokens, targets = ids()
    samples = [{"input_ids": row, "labels": other} for row, other in zip(tokens, targets, strict=True)]
    with pytest.raises(BatchError) as refused:
        train(gpt(), samples, name="x")
    assert str(refused.value) == (
        "The batches have input_ids, labels, which GPT.forward does not accept: missing a required argument: 'tokens'."
    )
    assert run_names() == []


def test_the_names_are_those_that_the_batches_really_have() -> None:
    tokens, _ = ids()
    samples = [{"input_ids": row} for row in tokens]
    wrong = DataLoader(samples, collate_fn=default_collate)  # type: ignore[arg-type]
    renamed = DataLoader(
        samples, collate_fn=lambda batch: {"tokens": batch[0]["input_ids"][None], "targets": tokens[:1]}
    )  # type: ignore[arg-type]
    only_whole = DataLoader(
        samples, batch_size=2, collate_fn=lambda batch: {"tokens": batch[1]["input_ids"][None], "targets": tokens[:1]}
    )  # type: ignore[arg-type]
    for loader in (renamed, only_whole):
        assert train(gpt(), loader, max_step=1).status == "finished"
    before = run_names()
    padded = MaskedTokens(TokenRow([[5, 6, 7]], 10), 8, Masking(Specials(10, frozenset({0}), 0)))
    for data in (wrong, padded):
        with pytest.raises(BatchError, match=r"^The batches have input_ids.*, which GPT\.forward does not accept:"):
            train(gpt(), data, name="x")
    assert run_names() == before


def test_a_sampler_may_ask_by_anything() -> None:
    class ByName(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, name: str) -> dict[str, Tensor]:
            return {"x": torch.ones(4) * {"one": 1, "two": 2}[name], "y": torch.ones(1)}

    loader = DataLoader(ByName(), sampler=["one", "two"])  # type: ignore[arg-type]
    assert train(made(LossMLP), loader, max_step=3).status == "finished"
    check_fit(gpt(), TINY, ByName())


def test_data_that_fits_to_the_last_id_trains() -> None:
    tokens, targets = ids(9)
    targets[0] = -100
    assert train(gpt(), (tokens, targets), (tokens, targets), max_step=2).status == "finished"
    assert train(gpt(), [{"tokens": tokens[0], "targets": tokens[0]}], max_step=1).status == "finished"


def test_data_with_a_vocabulary_is_not_searched() -> None:
    data = Told()
    check_fit(gpt(), TINY, data)
    assert data.asked <= 1


def test_of_a_large_dataset_64_samples_are_looked_at_and_the_generator_is_as_before() -> None:
    class Drawing(Numbers):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            super().__getitem__(index)
            return torch.randint(0, 10, (8,)), torch.zeros(8)

    data = Drawing(1000)
    model, before = gpt(), torch.get_rng_state()
    check_fit(model, TINY, data)
    assert len(data.asked) in range(32, 65)
    assert max(data.asked) > 900
    assert torch.equal(torch.get_rng_state(), before)


def test_without_limits_in_the_config_no_sample_is_loaded() -> None:
    data = Numbers()
    check_fit(made(MLP), {"width": 4}, data)
    assert data.asked == []
    assert train(made(MLP), xy(), max_step=1).status == "finished"


def test_class_labels_and_numbers_are_not_ids() -> None:
    inputs = ids()[0]
    check_fit(gpt(), TINY, torch.utils.data.TensorDataset(inputs, torch.full((6,), 500)))
    check_fit(gpt(), TINY, torch.utils.data.TensorDataset(inputs.float() + 100))


@pytest.mark.parametrize("name", ["context_length", "ctx_len", "n_positions", "max_position_embeddings"])
def test_the_limit_is_found_under_its_usual_names(name: str) -> None:
    assert limits_of({name: 7, "vocab_size": 9}).context == 7
    assert limits_of({name: True}).context is None


def test_the_config_may_be_of_any_kind() -> None:
    @dataclass
    class Config:
        vocab_size: int = 4

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Config()
            self.weight = nn.Parameter(torch.zeros(4))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.weight[tokens].sum()

    with pytest.raises(DataError, match="has the id 9, but"):
        train(Model(), ids(9)[:1])
