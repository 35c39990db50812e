"""Batches that count nothing, with weights in tensors as on an accelerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.metrics.means import Weighed, Weigher
from darkit.engine.metrics.window import Window, backward_of_nothing, divide_gradients


@pytest.mark.parametrize("sparse", [False, True])
def test_a_mean_over_no_items_leaves_the_gradients_of_the_other_batches(sparse: bool) -> None:
    ids, masks = torch.tensor([[0, 1], [2, 2], [1, 3]]), torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])

    def made() -> nn.Embedding:
        torch.manual_seed(0)
        return nn.Embedding(4, 1, sparse=sparse)

    def masked_mean(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
        return (model(ids)[..., 0].square() * mask).sum() / mask.sum()

    ours, theirs = made(), made()
    window = Window(3)
    for row, mask in zip(ids, masks, strict=True):
        loss = masked_mean(ours, row, mask)
        part = window.add(Weighed({"loss": loss}, {"loss": mask.sum()}))
        assert part is not None
        backward_of_nothing(Tensor.backward, ours.parameters(), window.empty, part)
    divide_gradients(torch.optim.SGD(ours.parameters()), window.close()[0])
    masked_mean(theirs, ids, masks).backward()
    found, expected = ours.weight.grad, theirs.weight.grad
    assert found is not None
    assert expected is not None
    assert found.is_sparse == sparse
    torch.testing.assert_close(found.to_dense(), expected.to_dense())


def test_only_losses_whose_gradient_over_no_items_is_surely_zero_are_safe() -> None:
    model = nn.Linear(2, 3)
    x, labels = torch.randn(4, 2), torch.full((4,), -100)

    def safe(loss: Any, **further: Any) -> bool:
        return Weigher(model)(lambda: {"loss": loss(), **further}, (x, labels)).safe

    def entropy(**settings: Any) -> Tensor:
        return F.cross_entropy(model(x), labels, **settings)

    assert safe(entropy)
    assert safe(lambda: (entropy() + entropy()) / 2, count=0)
    assert safe(lambda: entropy(label_smoothing=0.1))
    assert not safe(lambda: entropy(weight=torch.ones(3)))
    assert not safe(lambda: (model(x) * 0).sum() / (labels > 0).sum())
    assert not safe(lambda: entropy().square(), count=0)
    for settings in ({}, {"label_smoothing": 0.1}):
        model.zero_grad()
        (0.0 * entropy(**settings)).backward()
        assert all(one.grad is not None and not one.grad.any() for one in model.parameters())
