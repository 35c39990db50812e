"""What a checkpoint holds of a training, with darkit's adapter and with somebody else's module."""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.state import collect_state, of_rank, restore_callbacks
from tests.engine.parts import MLP, in_order, made, train, xy

KEYS = {
    "state_dict",
    "model_class",
    "current_step",
    "optimizer_state_dict",
    "scheduler_state_dict",
    "precision",
    "callbacks",
    "rng",
    "position",
}


class Collect(lightning.Callback):
    """Collects the state after a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.state: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *arguments: Any
    ) -> None:
        if trainer.global_step == self.step:
            self.state = collect_state(trainer, pl_module)


class Counting(lightning.Callback):
    """Has a state of its own."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


class Level(IntEnum):
    HIGH = 3


class Foreign(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(4, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def test_it_holds_everything_that_the_guide_names_and_the_rest() -> None:
    model, collect = made(), Collect(3)
    train(model, xy(), callbacks=[collect, Counting([1, 2.5, "x", torch.ones(2)])], scheduler="cosine")
    assert set(collect.state) == KEYS
    assert collect.state["model_class"] == "tests.engine.parts.MLP"
    assert collect.state["current_step"] == 3
    assert set(collect.state["state_dict"]) == set(model.state_dict())
    assert collect.state["optimizer_state_dict"]["state"][0]["step"] == 3
    assert collect.state["scheduler_state_dict"]["last_epoch"] == 3
    assert set(collect.state["rng"]) == {"python", "numpy", "torch", "cuda"}
    assert (collect.state["position"]["epoch"], collect.state["position"]["batches"]) == (0, 3)
    ((key, state),) = collect.state["callbacks"].items()
    assert key == Counting().state_key
    assert state["value"][2] == "x"


def test_of_somebody_elses_module_it_holds_the_module_itself() -> None:
    collect, module = Collect(3), Foreign()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=4,
        callbacks=[collect],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, in_order())
    assert set(collect.state) == KEYS
    Foreign().load_state_dict(collect.state["state_dict"])
    assert collect.state["scheduler_state_dict"] is not None
    assert collect.state["position"] == {"epoch": 0, "batches": 3}


@pytest.mark.parametrize("value", [object(), {1, 2}, [Level.HIGH], {"deep": (nn.Linear(1, 1),)}])
def test_a_callback_whose_state_cannot_be_read_safely_is_left_out_and_told(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collect = Collect(2)
    with caplog.at_level(logging.WARNING):
        train(made(), xy(), callbacks=[collect, Counting(value)], max_step=2)
    assert collect.state["callbacks"] == {}
    assert "The state of the callback Counting is not saved" in caplog.text


def test_each_rank_gets_its_own_numbers_and_a_new_one_the_firsts() -> None:
    state = {"rng": "zero", "ranks": [{"rng": "zero"}, {"rng": "one"}]}
    assert of_rank(state, 1)["rng"] == "one"
    assert of_rank(state, 5)["rng"] == "zero"
    assert of_rank({"rng": "alone"}, 3)["rng"] == "alone"


def test_callbacks_get_their_own_state_back() -> None:
    counting, silent = Counting(), lightning.Callback()
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[counting, silent],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    restore_callbacks(trainer, {"callbacks": {Counting().state_key: {"value": 4}, "Unknown": {"value": 5}}})
    assert counting.value == 4
    restore_callbacks(trainer, {})
    assert counting.value == 4


def test_the_model_trains_on_unharmed() -> None:
    with_it, without = made(MLP), made(MLP)
    train(with_it, xy(), callbacks=[Collect(2)])
    train(without, xy())
    assert all(torch.equal(with_it.state_dict()[key], value) for key, value in without.state_dict().items())
