"""Operations are counted as by hand, and what is counted computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.metrics import operations
from darkit.engine.metrics.operations import OperationCounter, size_of

BATCH, TIME, WIDTH = 3, 7, 5


class Attention(nn.Module):
    """Heads of width 5, without weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) * self.scale
        return F.scaled_dot_product_attention(x, x, x)


class Vector(nn.Module):
    """A product of a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).mv(self.weight)


class Recurrent(nn.Module):
    """A recurrent layer of 4 cells."""

    def __init__(self, kind: Any, **settings: Any) -> None:
        super().__init__()
        self.layer = kind(WIDTH, 4, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]  # type: ignore[no-any-return]


ATTENTION = 2 * BATCH * TIME * TIME * WIDTH  # of one product of all pairs of positions
GATES = 2 * BATCH * TIME * 4 * (WIDTH + 4)  # of one gate
CASES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # the model, and its forward and backward operations
    "linear": (lambda: nn.Linear(WIDTH, 4), 2 * BATCH * TIME * WIDTH * 4, 2 * 2 * BATCH * TIME * WIDTH * 4),
    "convolution": (
        lambda: nn.Conv1d(TIME, 4, 3, padding=1),
        2 * BATCH * WIDTH * 4 * TIME * 3,
        2 * 2 * BATCH * WIDTH * 4 * TIME * 3,
    ),
    "attention": (Attention, 2 * ATTENTION, 5 * ATTENTION),  # backward computes the scores again
    "vector": (Vector, 2 * BATCH * TIME * WIDTH, 2 * BATCH * TIME * WIDTH),  # the inputs get an outer product
    "lstm": (lambda: Recurrent(nn.LSTM), 4 * GATES, 8 * GATES),
    "two layers": (
        lambda: Recurrent(nn.LSTM, num_layers=2),
        4 * GATES + 4 * 2 * BATCH * TIME * 4 * (4 + 4),
        8 * GATES + 8 * 2 * BATCH * TIME * 4 * (4 + 4),
    ),
    "both directions": (lambda: Recurrent(nn.LSTM, bidirectional=True), 2 * 4 * GATES, 2 * 8 * GATES),
    "nothing": (nn.Tanh, 0, 0),
}


def gradients(model: nn.Module, inputs: Tensor, counter: OperationCounter | None = None) -> tuple[list[int], Any]:
    inputs = inputs.clone().requires_grad_()
    counts = []
    if counter is None:
        output = model(inputs)
        output.square().sum().backward()
    else:
        with counter:
            output = model(inputs)
        counts.append(counter.flops)
        loss = output.square().sum()
        with counter:
            loss.backward()
        counts.append(counter.flops - counts[0])
    return counts, [output, inputs.grad, *(weight.grad for weight in model.parameters())]


@pytest.mark.parametrize("case", CASES)
def test_operations_are_those_counted_by_hand_and_the_results_equal_in_every_bit(case: str) -> None:
    make, forward, backward = CASES[case]
    model, inputs, counter = make(), torch.randn(BATCH, TIME, WIDTH), OperationCounter()
    other = copy.deepcopy(model)
    counts, found = gradients(model, inputs, counter)
    assert not counter.uncounted
    assert counts == [forward, backward]
    _, plain = gradients(other, inputs)
    assert all(torch.equal(one, another) for one, another in zip(found, plain, strict=True))


@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (lambda: torch.zeros(3, 4).addmm_(torch.ones(3, 5), torch.ones(5, 4)), 2 * 3 * 5 * 4),
        (lambda: torch.zeros(2, 3, 4).baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 4)), 2 * 2 * 3 * 5 * 4),
        (lambda: torch.zeros(3).addmv_(torch.ones(3, 5), torch.ones(5)), 2 * 3 * 5),
        (lambda: torch.vdot(torch.ones(5), torch.ones(5)), 2 * 5),
    ],
)
def test_products_in_place_count_too(call: Callable[[], Tensor], flops: int) -> None:
    with OperationCounter() as counter:
        call()
    assert (counter.flops, counter.uncounted) == (flops, set())


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.zeros(3, 4).addbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 4)),
        lambda: torch.conv_tbc(torch.ones(7, 1, 4), torch.ones(2, 4, 3), torch.ones(3)),
    ],
)
def test_products_without_a_formula_are_named(call: Callable[[], Tensor]) -> None:
    with OperationCounter() as counter:
        call()
    assert len(counter.uncounted) == 1


def test_what_has_no_formula_is_named_and_a_formula_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = OperationCounter()
    with counter:
        nn.Bilinear(2, 2, 2)(torch.ones(1, 2), torch.ones(1, 2))
    assert counter.uncounted == {"aten._trilinear"}

    monkeypatch.setitem(operations.FORMULAS, torch.ops.aten.mm, lambda *arguments, **settings: 1 // 0)
    with counter:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.sum() == 8
    assert counter.uncounted == {"aten._trilinear", "aten.mm"}


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ({"input_ids": torch.zeros(3, 5, dtype=torch.long)}, (3, 15)),
        ([torch.zeros(3, 5), torch.zeros(3)], (3, None)),
        ((torch.zeros(3, dtype=torch.long),), (3, None)),
        ("text", (1, None)),
    ],
)
def test_tokens_are_whole_numbers_in_rows(batch: Any, size: tuple[int, int | None]) -> None:
    assert size_of(batch) == size
