"""Averaged weights: torch's own are the oracle; evaluated, saved, predicted with; resumed exactly."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import darkit
from darkit.core import Predicter
from darkit.core import Trainer as GuideTrainer
from darkit.engine.callbacks import EmaWeights, StepCheckpoint, StepEvaluate
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.errors import ConfigError
from darkit.runs.checkpoints import find_checkpoint, list_checkpoints
from tests.engine.callbacks.stock import Foreign, WatchOutputs, stock_fit
from tests.engine.parts import MLP, equal_weights, in_order, made, train, xy

SGD = functools.partial(torch.optim.SGD, lr=0.125, momentum=0.5)
DECAY = 0.75


class Tied(nn.Module):
    """Has tied weights, a frozen one, and buffers that training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.Linear(4, 1)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(self.frozen(self.norm(self.second(torch.relu(self.first(x))))), y)


def by_hand(model: nn.Module, steps: int) -> list[Any]:
    """Train in a plain loop; return torch's averaged model after each step."""
    optimizer = SGD([parameter for parameter in model.parameters() if parameter.requires_grad])
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    found = []
    for batch in ([*in_order()] * steps)[:steps]:
        optimizer.zero_grad()
        (model(*batch) if isinstance(model, Tied) else F.mse_loss(model(batch[0]), batch[1])).backward()
        optimizer.step()
        averaged.update_parameters(model)
        found.append({key: value.clone() for key, value in averaged.module.state_dict().items()})
    return found


@pytest.mark.parametrize("cls", [MLP, Tied])
@pytest.mark.filterwarnings("ignore:No config of Tied")
def test_the_averages_are_torchs_and_the_training_continues_with_raw_weights(cls: Any) -> None:
    ours, theirs = made(cls), made(cls)
    run = train(ours, in_order(), optimizer=SGD, ema_decay=DECAY, save_step_interval=1, max_step=6)
    expected = by_hand(theirs, 6)
    buffers = {name for name, _ in theirs.named_buffers()}
    for checkpoint in run.checkpoints():
        content = read_checkpoint(checkpoint)
        for key, value in content["state_dict"].items():
            wanted = content["raw_state_dict"][key] if key in buffers else expected[checkpoint.step - 1][key]
            assert torch.equal(value, wanted), (checkpoint.step, key)
    raw = read_checkpoint(run.checkpoints()[-1])["raw_state_dict"]
    assert all(torch.equal(raw[key], value) for key, value in theirs.state_dict().items())
    saved = read_checkpoint(run.checkpoints()[-1])["state_dict"]
    assert all(torch.equal(saved[key], value) for key, value in ours.state_dict().items()), "what predicts"


def test_they_are_what_is_evaluated_and_predicted_with() -> None:
    model = made()
    run = train(
        model, in_order(), in_order(), optimizer=SGD, ema_decay=DECAY, eval_step_interval=2, save_step_interval=2
    )
    x, y = xy()
    for checkpoint in run.checkpoints():
        again = made()
        again.load_state_dict(read_checkpoint(checkpoint)["state_dict"], strict=True)
        assert checkpoint.metrics["val_loss"] == pytest.approx(F.mse_loss(again(x), y).item(), rel=1e-6)
        with torch.no_grad():
            predicted = Predicter.from_pretrained(f"{run.name}:{checkpoint.name}", "cpu").predict(x)
        assert torch.equal(predicted, again(x))
    with torch.no_grad():
        assert torch.equal(model(x), predicted)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_a_resumed_run_averages_on_exactly(precision: str) -> None:
    class StopAt(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
            trainer.should_stop = trainer.global_step == 5

    options: dict[str, Any] = {
        "ema_decay": 0.999,
        "eval_step_interval": 2,
        "max_step": 9,
        "precision": precision,
        "monitor": "val_loss",
    }
    straight = train(made(), xy(), xy(), name="straight", **options)
    train(made(), xy(), xy(), name="broken", callbacks=[StopAt()], **options)
    broken = train(made(), xy(), xy(), name="broken", resume=True, **options)
    one, other = (read_checkpoint(find_checkpoint(run.path, 9)) for run in (straight, broken))
    assert [*differences(one, other)] == []
    assert straight.log()["val_loss"].to_list() == broken.log()["val_loss"].to_list()
    finer = one["callbacks"]["EmaWeights"]["finer"] if precision == "bf16-true" else {}
    assert len(finer) == (4 if precision == "bf16-true" else 0)


def test_a_new_run_starts_from_the_averages_and_the_same_run_without_them_from_the_raw_weights() -> None:
    options: dict[str, Any] = {"optimizer": SGD, "lr": 0.0}
    run = train(made(), in_order(), name="run", optimizer=SGD, ema_decay=DECAY, max_step=5)
    content = read_checkpoint(run.checkpoints()[-1])
    seen: list[Any] = []

    class Looks(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            seen.append({key: value.clone() for key, value in pl_module.module.state_dict().items()})

    train(made(), in_order(), name="new", resume="run", max_step=1, callbacks=[Looks()], **options)
    with pytest.raises(ConfigError, match=r"other settings: ema_decay 0.75 -> 0.0"):
        train(made(), in_order(), name="run", resume=True, optimizer=SGD, max_step=6)
    off = {"resume": True, "resume_overrides": True, "callbacks": [Looks()]}
    train(made(), in_order(), name="run", optimizer=SGD, max_step=6, **off)
    for found, kind in zip(seen, ("state_dict", "raw_state_dict"), strict=True):
        assert all(torch.equal(content[kind][key], value) for key, value in found.items())
    assert "raw_state_dict" not in read_checkpoint(darkit.load("run").checkpoints()[-1])


def test_with_the_best_at_the_end_the_model_has_the_averages_of_the_best_step() -> None:
    model = made()
    options: dict[str, Any] = {"ema_decay": DECAY, "load_best_at_end": True, "eval_step_interval": 2, "mode": "max"}
    run = train(model, in_order(), in_order(), optimizer=SGD, **options)
    saved = read_checkpoint(find_checkpoint(run.path, run.info["best"]["step"]))["state_dict"]
    assert run.info["best"]["step"] == 2
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_after_a_failure_the_checkpoint_has_both_and_the_model_the_raw_weights() -> None:
    class Fails(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 4:
                raise ZeroDivisionError

    model, theirs = made(), made()
    with pytest.raises(ZeroDivisionError):
        train(model, in_order(), name="run", optimizer=SGD, ema_decay=DECAY, callbacks=[Fails()])
    averaged = by_hand(theirs, 4)[-1]
    content = read_checkpoint(darkit.load("run").checkpoints()[-1])
    assert all(torch.equal(content["state_dict"][key], value) for key, value in averaged.items())
    assert equal_weights(model, theirs)


def test_the_guides_trainer_keeps_them_too_and_does_not_save_them_as_the_last_step_again() -> None:
    config = darkit.TrainerConfig(name="guide", device="cpu", ema_decay=DECAY, max_step=4, tensorboard=False)
    trainer = GuideTrainer(made(), config, loss=F.mse_loss)
    run = trainer.train(in_order())
    assert "raw_state_dict" in read_checkpoint(run.checkpoints()[-1])
    with pytest.raises(ConfigError, match=r"does not have the weights of the last step \(ema_decay\)"):
        trainer.save_pretrained()


def test_in_a_stock_trainer_the_callbacks_after_it_use_the_averages(folder: Path) -> None:
    module = Foreign()
    outputs = WatchOutputs()
    parts = (EmaWeights(DECAY), StepEvaluate(in_order(8), 2), outputs, StepCheckpoint(folder, 2))
    stock_fit(module, *parts, max_steps=4)
    for checkpoint in list_checkpoints(folder):
        content = read_checkpoint(checkpoint)
        again = Foreign()
        again.load_state_dict(content["state_dict"])
        again.eval()
        x, y = xy(8)
        value = F.mse_loss(again.layers(x), y).item()
        assert outputs.rows[checkpoint.step]["val_loss"] == pytest.approx(value, rel=1e-6)
    assert all(torch.equal(content["raw_state_dict"][key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("wrong", [0, 1, -0.5, 1.5])
def test_a_decay_out_of_its_range_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="decay must be above 0 and below 1"):
        EmaWeights(wrong)
