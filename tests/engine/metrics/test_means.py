"""Means are independent of the batch size, in evaluation and gradient accumulation."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from darkit.engine.callbacks.evaluate import evaluate
from darkit.engine.metrics.means import Weighed, Weigher
from darkit.engine.metrics.window import Window, divide_gradients
from darkit.engine.steps.loss import make_step
from darkit.errors import LossError
from tests.engine.parts import LossMLP, made, train, xy

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=12)
MODULE = nn.Linear(1, 1)


class Tagger(nn.Module):
    """Logits for each token; its loss ignores -100."""

    def __init__(self, vocabulary: int = 5) -> None:
        super().__init__()
        self.scores = nn.Embedding(vocabulary, vocabulary)

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.scores(tokens)
        hit = (logits.argmax(-1) == labels)[labels != -100].float().mean()
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "accuracy": hit}


def lines(lengths: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Rows of tokens and labels; the first label of each is ignored."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 5, (length + 1,), generator=generator) for length in lengths]
    return [(row, torch.cat([torch.tensor([-100]), row[1:]])) for row in rows]


def padded(rows: list[tuple[Tensor, Tensor]], size: int) -> list[tuple[Tensor, Tensor]]:
    pad = nn.utils.rnn.pad_sequence
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    return [
        (
            pad([tokens for tokens, _ in part], batch_first=True),
            pad([labels for _, labels in part], batch_first=True, padding_value=-100),
        )
        for part in parts
    ]


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(1, 12))
def test_an_evaluation_is_the_same_for_every_batch_size(lengths: list[int], size: int) -> None:
    model, rows = made(Tagger), lines(lengths)
    step = make_step(model)
    whole, parts = (evaluate(model, padded(rows, many), step, 0) for many in (len(rows), size))
    for name in ("loss", "accuracy"):
        assert parts[name].item() == pytest.approx(whole[name].item(), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(1, 12), st.sampled_from(["tokens", "samples", "said", "sum by count"]))
def test_accumulated_gradients_are_those_of_one_large_batch(lengths: list[int], size: int, kind: str) -> None:
    rows = lines(lengths)

    def loss(model: nn.Module, batch: Any) -> Any:
        logits, labels = model.scores(batch[0]), batch[1]
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").reshape(labels.shape)
        if kind == "samples":
            return (each.sum(1) / (labels != -100).sum(1)).mean()
        if kind == "said":
            return {
                "loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()) * 1.0,
                "count": (labels != -100).sum(),
            }
        return each.sum() / (labels != -100).sum() if kind == "sum by count" else make_step(model)(batch)

    ours, theirs = made(Tagger), made(Tagger)
    value, expected = accumulated(ours, padded(rows, size), loss), accumulated(theirs, padded(rows, len(rows)), loss)
    assert value == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(ours.scores.weight.grad, theirs.scores.weight.grad, rtol=1e-5, atol=1e-6)


def accumulated(model: nn.Module, batches: list[Any], loss: Any) -> float:
    step, weigh, window = make_step(model, loss), Weigher(model), Window(len(batches))
    for batch in batches:
        part = window.add(weigh(lambda batch=batch: step(batch), batch))  # type: ignore[misc]
        assert part is not None
        part.backward()
    divisor, means = window.close()
    divide_gradients(torch.optim.SGD(model.parameters(), lr=0.1), divisor)
    return means["loss"].item()


def test_batches_of_equal_weight_give_the_same_bits_as_a_plain_mean() -> None:
    ours, theirs = made(LossMLP), made(LossMLP)
    batches = [(xy(12)[0][first : first + 4], xy(12)[1][first : first + 4]) for first in (0, 4, 8)]
    accumulated(ours, batches, None)
    for x, y in batches:
        ((theirs.layers(x) - y).square().mean() / 3).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def said(value: float, size: int) -> Any:
    return {"inputs": {"a": torch.full((size,), value)}, "target": {"y": torch.zeros(size)}}


@pytest.mark.parametrize(
    ("batches", "expected"), [([said(0, 4), said(0, 4), said(1, 2)], 0.2), ([said(0, 4), said(10, 1)], 2.0)]
)
def test_nested_batches_count_by_their_samples(batches: list[Any], expected: float) -> None:
    means = evaluate(MODULE, batches, lambda batch, _: {"loss": batch["inputs"]["a"][0] * 1.0}, 0)
    assert means["loss"].item() == pytest.approx(expected)


def test_graphs_count_and_not_their_nodes() -> None:
    batches = [
        SimpleNamespace(x=torch.zeros(2, 1), y=torch.zeros(2), num_graphs=2),
        SimpleNamespace(x=torch.zeros(98, 1), y=torch.full((1,), 10.0), num_graphs=1),
    ]
    assert evaluate(MODULE, batches, lambda batch, _: {"loss": batch.y[0] * 1.0}, 0)["loss"].item() == pytest.approx(
        10 / 3
    )
    assert evaluate(MODULE, batches, lambda batch, _: {"loss": batch.y.mean()}, 0)["loss"].item() == pytest.approx(
        10 / 3
    )


def test_a_metric_that_some_batches_have_is_the_mean_over_those() -> None:
    def compute(batch: Tensor, index: int) -> dict[str, Any]:
        return {"loss": batch.mean()} | ({"sometimes": 0.8} if index == 2 else {})

    assert evaluate(MODULE, [torch.ones(4)] * 4, compute, 0)["sometimes"].item() == pytest.approx(0.8)


@pytest.mark.parametrize("number", [123456789, torch.tensor(123456789), torch.tensor([123456789], dtype=torch.int32)])
def test_whole_numbers_keep_their_value(number: Any) -> None:
    batches = [torch.ones(4), torch.ones(3)]
    means = evaluate(MODULE, batches, lambda batch, _: {"loss": batch.mean(), "number": number}, 0)
    assert means["number"].item() == 123456789


def test_a_step_may_return_its_count() -> None:
    def compute(batch: Tensor, index: int) -> dict[str, Any]:
        return {"loss": batch.max(), "count": [1, 3][index]}

    means = evaluate(MODULE, [torch.zeros(4), torch.full((4,), 4.0)], compute, 0)
    assert (means["loss"].item(), means["count"].item()) == (3.0, 4)


def test_a_returned_count_overrides_the_observed_one_and_zero_counts_nothing() -> None:
    def compute(batch: Tensor, index: int) -> dict[str, Any]:
        return {"loss": batch.mean(), "count": [1, 0, 3][index]}

    batches = [torch.zeros(4), torch.full((4,), math.nan), torch.full((1,), 4.0)]
    assert evaluate(MODULE, batches, compute, 0)["loss"].item() == 3.0


def test_a_compiled_model_is_not_watched() -> None:
    model = nn.Linear(4, 3)
    model.compile(backend="eager")
    batch = (torch.zeros(6, 4), torch.zeros(6, 3))
    assert Weigher(model)(lambda: {"loss": F.mse_loss(batch[0], batch[0])}, batch).weights == {"loss": 6}


@pytest.mark.parametrize("count", [-1, math.nan, math.inf])
def test_an_invalid_count_is_refused(count: float) -> None:
    with pytest.raises(LossError, match="'count' must be a number of at least 0"):
        evaluate(MODULE, [torch.ones(2)], lambda batch, _: {"loss": batch.mean(), "count": count}, 0)


def test_a_batch_without_targets_counts_nothing() -> None:
    model = made(Tagger)
    some, none = (torch.tensor([[1, 2]]), torch.tensor([[-100, 3]])), (torch.tensor([[1, 2]]), torch.full((1, 2), -100))
    step = make_step(model)
    alone, both = (evaluate(model, batches, step, 0)["loss"].item() for batches in ([some], [none, some]))
    assert both == alone
    assert math.isnan(evaluate(model, [none], step, 0)["loss"].item())


def test_an_unknown_denominator_gives_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = made(LossMLP)
    train(
        model,
        xy(),
        xy(),
        loss=lambda model, batch: (model.layers(batch[0]) - batch[1]).square().mean().sqrt(),
        gradient_accumulation_steps=2,
        eval_step_interval=1,
    )
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert told[0].startswith("The denominator of the loss is unknown; batches are weighted by the number of samples.")


def test_a_known_denominator_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    train(made(LossMLP), xy(), xy(), gradient_accumulation_steps=2, eval_step_interval=1)
    assert not caplog.records


def test_weights_that_stay_on_an_accelerator_give_the_same_step() -> None:
    rows, grads, losses = padded(lines([3, 1, 6]), 1), [], []
    rows.insert(0, (rows[0][0], torch.full_like(rows[0][1], -100)))  # nobody knows there that it asks for nothing
    for kind in (float, torch.tensor):
        model, window = made(Tagger), Window(len(rows))
        for tokens, labels in rows:
            weight = kind(float((labels != -100).sum()))
            part = window.add(Weighed({"loss": model(tokens, labels)["loss"]}, {"loss": weight}))
            if part is not None:
                part.backward()
        divisor, means = window.close()
        divide_gradients(torch.optim.SGD(model.parameters()), divisor)
        grads.append(model.scores.weight.grad)
        losses.append(means["loss"].item())
    torch.testing.assert_close(grads[0], grads[1])
    assert losses[0] == pytest.approx(losses[1])
    assert math.isfinite(losses[0])


def test_a_step_without_targets_on_an_accelerator_has_finite_gradients() -> None:
    model, window = made(Tagger), Window(2)
    labels = torch.full((1, 2), -100)
    for _ in range(2):
        weighed = Weighed({"loss": model(torch.tensor([[1, 2]]), labels)["loss"]}, {"loss": torch.tensor(0.0)})
        window.add(weighed).backward()  # type: ignore[union-attr]
    divide_gradients(torch.optim.SGD(model.parameters()), window.close()[0])
    assert torch.equal(model.scores.weight.grad, torch.zeros(5, 5))


def test_values_that_are_not_means_give_one_warning_by_name(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(nn.Linear):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            loss = F.cross_entropy(self(batch[0]), batch[1])
            hits = self(batch[0]).argmax(1) == batch[1]
            return {"loss": loss, "perplexity": loss.exp(), "hits": hits.sum(), "accuracy": hits.float().mean()}

    data = (torch.randn(12, 4), torch.randint(0, 3, (12,)))
    with caplog.at_level(logging.WARNING, logger="darkit"):
        train(Counting(4, 3), data, data, max_step=4, eval_step_interval=1)
    told = [record.getMessage() for record in caplog.records if "batch size" in record.getMessage()]
    assert [message.partition(",")[0] for message in told] == [
        "'perplexity' is not a mean",
        "'hits' is a sum over a batch",
    ]
