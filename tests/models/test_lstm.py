"""The recurrent language model: causal, with a state of one size, and it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import darkit
from darkit.core import Predicter
from darkit.models.lstm import LSTM, LSTMConfig
from tests.cli.parts import done

SMALL = {"vocab_size": 50, "context_length": 20, "num_layers": 2, "hidden_size": 16}


def made(**changes: Any) -> LSTM:
    torch.manual_seed(0)
    return LSTM(LSTMConfig(**{**SMALL, **changes})).eval()


@pytest.mark.parametrize("sizes", [[1] * 20, [7, 1, 12]])
def test_piece_by_piece_is_as_in_one(sizes: list[int]) -> None:
    model = made()
    tokens = torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(1))
    cache = model.make_cache(2)
    with torch.inference_mode():
        pieces = [model(piece, cache=cache) for piece in tokens.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=1e-4, atol=1e-5)
    assert (cache.length, cache.limit) == (20, None)


@pytest.mark.parametrize("tie", [True, False])
def test_every_parameter_learns(tie: bool) -> None:
    model = made(tie_embeddings=tie)
    tokens = torch.randint(0, 50, (4, 20))
    model(tokens, tokens)[1].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert (model.head.weight is model.embedding.weight) == tie


def test_it_learns_text_and_goes_on_beyond_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    text = ("data.context_length=32", "data.vocab_size=300", "trainer.max_step=40", "trainer.eval_iters=2")
    done(capsys, "train", "model=lstm", "model.config.hidden_size=64", "name=run", *text, "trainer.log_step_interval=1")
    log = darkit.load("run").log()
    assert log["train_loss"][-1] < log["train_loss"][0] - 1
    text = "".join(Predicter.from_pretrained("run", "cpu").predict("The import", max_new_tokens=60, seed=1))
    assert len(text) > 40


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number, at least 1, not 0"),
        ({"dropout": -1}, "dropout must be a number from 0 to below 1, not -1"),
        ({"tie_embeddings": None}, "tie_embeddings must be true or false, not None"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LSTMConfig(**changes)
