"""Evaluating a run's model: one number, whatever the batch size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from darkit.data.text.windows import DocumentWindows, TokenRow
from darkit.models.gpt import GPT, GPTConfig
from darkit.prediction.evaluation import evaluate_run
from tests.engine.parts import made, train


def lines(count: int) -> Any:
    """Short and long lines of tokens, of which the short ones are harder."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 25, (count,), generator=generator).tolist()
    rows = [torch.randint(0, 20, (n,), generator=generator) if n < 8 else torch.arange(n) % 5 for n in lengths]
    return DocumentWindows(TokenRow(rows, vocabulary=20), 24)


def test_perplexity_is_one_value_for_every_batch_size() -> None:
    config = GPTConfig(vocab_size=20, context_length=24, num_layers=1, num_heads=1, hidden_size=8, dropout=0.0)
    data = lines(300)
    run = train(made(GPT, config=config), data, data, batch_size=7, max_step=30, lr=0.02, eval_iters=0)
    found = [evaluate_run(run.name, data, device="cpu", batch_size=size, note=False) for size in (1, 4, 16, 32, 1000)]
    inputs, targets = data.collate_fn([data[index] for index in range(len(data))])
    model = GPT(config)
    model.load_state_dict(torch.load(run.latest_checkpoint().path, weights_only=True)["state_dict"])
    with torch.no_grad():
        expected = math.exp(model.eval()(inputs, targets)[1].double().item())
    assert [metrics["perplexity"] for metrics in found] == pytest.approx([expected] * 5, rel=1e-6)
    assert run.log()["val_loss"][-1] == pytest.approx(math.log(expected), rel=1e-6)
