"""No checkpoint mixes two steps, whatever a model or callback changes before the next optimizer step.

An error after a step either saves that step, and its resume is the uninterrupted training to the bit, or saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import callbacks as stock
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import darkit
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.parts import xy
from tests.engine.resuming import STEPS, Dropping, run_one
from tests.engine.test_ends import Breaks, Fails

Make = Callable[[], Any]
SAVES = 3


def module_of(pl_module: Any) -> Any:
    return getattr(pl_module, "module", pl_module)


class Normalizing(Dropping):
    """Assigns a trained weight in its forward pass."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.layers[0].weight.data = F.normalize(self.layers[0].weight.data)
        return super().training_step(batch)


class Shrinks(lightning.Callback):
    """Changes a trained weight in place before every batch."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        for weight in module_of(pl_module).parameters():
            weight.data.mul_(0.99)


class Clips(lightning.Callback):
    """Clips the trained weights before or after every batch, as a critic's of a WGAN."""

    def __init__(self, hook: str = "on_train_batch_start") -> None:
        setattr(self, hook, self.clip)

    def clip(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        for weight in module_of(pl_module).parameters():
            weight.data.clamp_(-0.2, 0.2)


class ClipsAfter(Clips):
    def __init__(self) -> None:
        super().__init__("on_train_batch_end")


class Decays(lightning.Callback):
    """Sets its own learning rate and momentum before every batch."""

    def on_train_batch_start(self, trainer: Any, *rest: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        group["lr"] *= 0.9
        group["betas"] = (group["betas"][0] * 0.99, 0.999)


class Counting(Dropping):
    """Counts its passes in state of its own, of which the loss depends."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = {"passes": torch.zeros(()), "list": [0]}

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = {"passes": state["passes"].clone(), "list": list(state["list"])}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.seen["passes"] += 1
        self.seen["list"][0] += 1
        return super().training_step(batch) * (1 + 0.1 * self.seen["passes"] + 0.1 * self.seen["list"][0])


class Parametrized(Dropping):
    """Weights that are computed from others: torch's parametrizations of every kind, with buffers of their own."""

    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.layers[0])
        self.turn = parametrizations.orthogonal(nn.Linear(4, 4))
        self.flat = parametrizations.spectral_norm(nn.Linear(4, 4))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().training_step((self.flat(self.turn(batch[0])), batch[1]))


def by_epochs(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


class Rates(lightning.Callback):
    """Changes the rate by epochs too: at the end of one, which a resume does not repeat."""

    def on_train_epoch_end(self, trainer: Any, *rest: Any) -> None:
        trainer.optimizers[0].param_groups[0]["weight_decay"] += 0.1


def nothing() -> list[Any]:
    return []


CASES: dict[str, tuple[Make, Callable[[], Sequence[Any]], bool]] = {
    "assigned in forward": (Normalizing, nothing, False),
    "in place before a batch": (Dropping, lambda: [Shrinks()], False),
    "clipped before a batch": (Dropping, lambda: [Clips()], False),
    "clipped after a batch": (Dropping, lambda: [ClipsAfter()], True),
    "rate before a batch": (Dropping, lambda: [Decays()], True),
    "rates by epochs": (Dropping, lambda: [Rates()], True),
    "extra state": (Counting, nothing, True),
    "parametrized": (Parametrized, nothing, True),
    "parametrized and clipped": (Parametrized, lambda: [ClipsAfter()], True),
}


@pytest.mark.parametrize("loop", ["own", "lightnings"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:No config of", "ignore:.*rediction needs", "ignore:.*spectral_norm")
def test_a_checkpoint_is_of_one_step(case: str, loop: str) -> None:
    model, callbacks, is_saved = CASES[case]
    lightnings = [stock.LearningRateMonitor()] if loop == "lightnings" else []

    def train(name: str, *further: Any, **options: Any) -> darkit.Run:
        made = [*lightnings, *callbacks(), *further]
        options = {"save_step_interval": SAVES, **further_options(case), **options}
        return run_one(xy, name, model=model, callbacks=lambda: made, **options)

    straight = train("straight", save_step_interval=1)
    for place, step in (("backward", 4), ("forward", 7)):
        name = f"{place}-{step}"
        with pytest.raises(Fails) as caught:
            train(name, Breaks(place, step))
        saved = [checkpoint.step for checkpoint in darkit.load(name).checkpoints()]
        is_noted = any("since the end of the step" in note for note in getattr(caught.value, "__notes__", []))
        regular = list(range(SAVES, step + 1, SAVES))
        assert saved == ([*regular, step] if is_saved else regular)
        assert is_noted != is_saved
        for one in saved:
            if case == "rates by epochs" and one == step == 4:  # saved before and after the end of the epoch
                continue
            assert same_step(straight, darkit.load(name), one) == []
        resumed = train(name, resume=True)
        assert same_step(straight, resumed, STEPS) == []
        assert resumed.log()["train_loss"].to_list() == straight.log()["train_loss"].to_list()


def further_options(case: str) -> dict[str, Any]:
    return {"scheduler": (by_epochs, "epoch")} if case == "rates by epochs" else {}


def same_step(run: darkit.Run, other: darkit.Run, step: int) -> list[str]:
    """Return the differences of two checkpoints in what the training computes with."""
    states = [read_checkpoint(find_checkpoint(which.path, step)) for which in (run, other)]
    keys = ("state_dict", "optimizer_state_dict", "optimizer_states", "rng")
    one, two = ({key: state[key] for key in keys if key in state} for state in states)
    assert len(one) == 3
    return list(differences(one, two))
