"""The module that Lightning sees: its steps come in stretches, without a visible difference."""

from __future__ import annotations

import time
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darkit.engine.config import TrainerConfig
from darkit.engine.data.feed import Feed
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.loss import make_step
from tests.engine.callbacks.stock import stock_fit
from tests.engine.parts import MLP, LossMLP, equal_weights, hand_loop, in_order, made, train, xy


def adapted(model: nn.Module, **settings: Any) -> Adapter:
    config = TrainerConfig(optimizer="sgd", lr=0.1, **settings)
    return Adapter(model, make_step(model, F.mse_loss), config, feed=Feed(in_order()))


@pytest.mark.filterwarnings("ignore:::lightning")
def test_in_a_stock_trainer_it_trains_as_a_plain_loop() -> None:
    ours, theirs = made(), made()
    adapter = adapted(ours)
    trainer = stock_fit(adapter, data=adapter.feed, max_steps=7)
    hand_loop(theirs, (list(in_order()) * 2)[:7], torch.optim.SGD(theirs.parameters(), lr=0.1))
    assert trainer.global_step == 7
    assert equal_weights(ours, theirs)


@pytest.mark.filterwarnings("ignore:::lightning")
def test_by_epochs_in_a_stock_trainer_it_ends_after_them() -> None:
    adapter = adapted(made())
    assert stock_fit(adapter, data=adapter.feed, max_epochs=3).global_step == 12


class Meets(lightning.Callback):
    """Records the arguments of a callback after every batch."""

    def __init__(self) -> None:
        self.met: list[tuple[int, int, float, tuple[int, ...]]] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.met.append((trainer.global_step, batch_idx, outputs["loss"].item(), tuple(batch[0].shape)))


@pytest.mark.parametrize("pause", [0.0, 0.03])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_callbacks_get_every_step_with_its_outputs_and_batch_whatever_its_duration(
    pause: float, precision: str
) -> None:
    def loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        time.sleep(pause)
        return F.mse_loss(outputs, target)

    meets = Meets()
    run = train(made(), in_order(10), loss=loss, callbacks=[meets], max_step=9, precision=precision)
    assert [step for step, _, _, _ in meets.met] == list(range(1, 10))
    assert [index for _, index, _, _ in meets.met] == [0, 1, 2] * 3
    assert [shape[0] for _, _, _, shape in meets.met] == [4, 4, 2] * 3
    assert [loss for _, _, loss, _ in meets.met] == run.log()["train_loss"].to_list()


def test_a_callback_that_starts_a_step_sees_the_weights_before_it() -> None:
    class Before(lightning.Callback):
        def __init__(self) -> None:
            self.weights: list[torch.Tensor] = []

        def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, *rest: Any) -> None:
            self.weights.append(pl_module.module.layers[0].weight.detach().clone())

    before = Before()
    model = made()
    first = model.layers[0].weight.detach().clone()
    train(model, xy(), callbacks=[before], max_step=3)
    assert torch.equal(before.weights[0], first)
    assert len(before.weights) == 3
    assert not torch.equal(before.weights[1], before.weights[2])


def test_a_hook_between_backward_and_step_may_change_the_gradients() -> None:
    class Halves(lightning.Callback):
        def on_before_optimizer_step(self, trainer: lightning.Trainer, pl_module: Any, optimizer: Any) -> None:
            for parameter in pl_module.module.parameters():
                parameter.grad.mul_(0.5)

    ours, theirs = made(), made()
    train(ours, in_order(), optimizer="sgd", lr=0.1, callbacks=[Halves()])
    hand_loop(theirs, (list(in_order()) * 2)[:6], torch.optim.SGD(theirs.parameters(), lr=0.05))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_mean_over_accumulated_batches_is_what_callbacks_see() -> None:
    seen: list[float] = []

    class Sees(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
            seen.extend([outputs["loss"].item()] if outputs else [])

    run = train(made(LossMLP), xy(), gradient_accumulation_steps=3, max_step=4, callbacks=[Sees()])
    assert seen == run.log()["train_loss"].to_list()
    assert len(seen) == 4


def test_attributes_of_every_kind_are_still_what_torch_makes_of_them() -> None:
    adapter = adapted(made())
    adapter.number = 1
    adapter.number = 2
    adapter.weight = None
    adapter.weight = nn.Parameter(torch.ones(()))
    adapter.layer = MLP()
    assert adapter.number == 2
    assert "weight" in dict(adapter.named_parameters())
    assert "layer.layers.0.weight" in adapter.state_dict()
    with pytest.raises(TypeError):
        adapter.layer = 3
