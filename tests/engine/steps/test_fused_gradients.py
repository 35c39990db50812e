"""Gradients that a fused kernel would read wrongly or not at all: stepped as a plain loop without it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from darkit.errors import ConfigError
from tests.engine.parts import equal_weights, hand_loop, in_order, made, train
from tests.engine.steps.test_fused import OPTIMIZERS, is_fused


class Functional(nn.Module):
    """Its gradient is sparse by an argument of a function, which no attribute shows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(16, 3))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.rows, sparse=True).sum((1, 2))[:, None]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_gradients_that_turn_out_sparse_are_stepped_without_it(name: str) -> None:
    data = DataLoader(TensorDataset(torch.arange(16).reshape(8, 2), torch.ones(8, 1)), batch_size=4)
    ours, theirs = made(Functional), made(Functional)
    options: dict[str, Any] = {"loss": F.mse_loss, "optimizer": name, "weight_decay": 0.0}
    run = train(ours, data, **options, lr=0.1, max_step=4)
    hand_loop(theirs, list(data) * 2, OPTIMIZERS[name](theirs.parameters(), lr=0.1))
    assert equal_weights(ours, theirs)
    assert not is_fused(run, 4)
    with pytest.raises(ConfigError, match=r"^fused=true is not possible: a gradient is sparse\. Use fused='auto'\.$"):
        train(made(Functional), data, **options, fused=True)


def turned(gradient: Tensor) -> Tensor:
    """Twice a gradient, with the strides of a product of transposed matrices."""
    return (2 * gradient.t().contiguous()).t() if gradient.ndim == 2 else gradient


def all_the_same(gradient: Tensor) -> Tensor:
    """A gradient whose elements are all at one place in memory."""
    return gradient.mean().expand_as(gradient)


def replace_by_hooks(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Replace gradients as soon as they are accumulated."""
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda one: setattr(one, "grad", change(one.grad)))  # type: ignore[arg-type]


class OfStep(lightning.Callback):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in pl_module.module.parameters():
            parameter.grad = self.change(parameter.grad)


class OfBackward(lightning.Callback):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.module.parameters():
            parameter.grad = self.change(parameter.grad)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("change", [turned, all_the_same])
def test_gradients_of_another_layout_are_stepped_as_a_plain_loop_does(
    name: str, change: Callable[[Tensor], Tensor]
) -> None:
    """The kernels walk memory as the parameter lies in it, whatever the strides of a gradient."""
    theirs = made()
    replace_by_hooks(theirs, change)
    hand_loop(theirs, in_order(), OPTIMIZERS[name](theirs.parameters(), lr=0.01, weight_decay=0.0))
    for callbacks in ([OfStep(change)], [OfBackward(change)], []):
        ours = made()
        if not callbacks:
            replace_by_hooks(ours, change)
        options: dict[str, Any] = {"optimizer": name, "lr": 0.01, "weight_decay": 0.0, "max_step": 4}
        assert is_fused(train(ours, in_order(), **options, callbacks=callbacks), 4)
        assert_close(ours, theirs)


def test_gradients_that_the_last_hook_lays_out_anew_are_right_in_mixed_precision() -> None:
    """Lightning calls that hook within the optimizer's step, in its closure."""
    ours, plain = made(), made()
    options: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "max_step": 4, "precision": "bf16-mixed"}
    assert is_fused(train(ours, in_order(), **options, callbacks=[OfStep(turned)]), 4)
    train(plain, in_order(), **options, fused=False, callbacks=[OfStep(turned)])
    assert_close(ours, plain)


class AsItComes(nn.Module):
    """Its parameters are used turned, expanded and in channels last: autograd decides how their gradients lie."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(5, 4))
        self.wide = nn.Parameter(torch.randn(1, 5))
        self.tall = nn.Parameter(torch.randn(5, 1))
        self.lying = nn.Parameter(torch.randn(4, 5).t())
        self.convolution = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        hidden = x @ self.turned.t() * self.wide.expand(len(x), -1) + (self.lying @ x.t()).t() * self.tall.t()
        image = self.convolution(x.reshape(-1, 1, 2, 2).expand(-1, 2, -1, -1))
        return {"loss": F.mse_loss(hidden.sum(1, keepdim=True) + image.sum((1, 2, 3))[:, None], y)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_as_autograd_leaves_them_are_right(accumulation: int) -> None:
    ours, plain = made(AsItComes), made(AsItComes)
    options: dict[str, Any] = {"lr": 0.01, "max_step": 4, "gradient_accumulation_steps": accumulation}
    assert is_fused(train(ours, in_order(), optimizer="adam", **options), 4)
    train(plain, in_order(), optimizer="adam", fused=False, **options)
    assert_close(ours, plain)


def test_a_gradient_of_another_dtype_is_stepped_without_it() -> None:
    ours, theirs = made(), made()
    for model in (ours, theirs):
        for parameter in model.parameters():
            parameter.grad_dtype = None  # any
        replace_by_hooks(model, Tensor.double)
    run = train(ours, in_order(), optimizer="sgd", lr=0.1, weight_decay=0.0, max_step=4)
    hand_loop(theirs, in_order(), torch.optim.SGD(theirs.parameters(), lr=0.1))
    assert equal_weights(ours, theirs)
    assert not is_fused(run, 4)


def assert_close(one: nn.Module, other: nn.Module) -> None:
    """Compare weights of both kinds of kernels, which round differently."""
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second)
