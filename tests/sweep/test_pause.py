"""Trials that are paused and promoted equal those that never were, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import lightning
import pytest
import torch

import darkit
from darkit.errors import ConfigError, NonFiniteLossError
from darkit.runs import load
from darkit.sweep.pause import PauseAt, PauseBelowMedian, RecordLineage
from darkit.sweep.progress import has_diverged, has_reached, is_pruned

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
DATA = {"train": (X, X.sum(1, keepdim=True)), "val": (X[:8], X[:8].sum(1, keepdim=True))}
QUIET = {"tensorboard": False, "console": False}
SETTINGS: dict[str, Any] = {
    **QUIET,
    "max_step": 24,
    "batch_size": 8,
    "eval_step_interval": 4,
    "scheduler": "cosine",
    "warmup_step": 3,
    "ema_decay": 0.9,
    "lr": 0.05,
}


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def fit(name: str, *callbacks: Any, **more: Any) -> dict[str, Any]:
    made = model()
    darkit.fit(made, DATA, name=name, callbacks=callbacks, loss=torch.nn.functional.mse_loss, **SETTINGS | more)
    return made.state_dict()


def test_a_promoted_trial_equals_one_that_was_never_paused(home: object) -> None:
    whole = fit("whole")
    for step in (8, 12, 16):
        fit("rungs", PauseAt(step, "s"), resume="auto")
        run = load("rungs")
        assert (run.status, run.details.step) == ("stopped", step)
        assert run.details.reason == f"Paused at step {step} of the sweep 's'."
        assert run.details.max_step == 24
        assert has_reached(run, step)
        assert not has_reached(run, step + 1)
        assert not has_reached(run, None)
        assert not is_pruned(run)
    rungs = fit("rungs", resume="auto")
    assert has_reached(load("rungs"), None)
    assert whole.keys() == rungs.keys()
    assert all(torch.equal(whole[key], rungs[key]) for key in whole)
    logs = [load(name).log().drop("time") for name in ("whole", "rungs")]
    assert logs[0].equals(logs[1])
    assert logs[0]["lr"][0] < logs[0]["lr"][4] > logs[0]["lr"][-1], "the schedule goes to the last step"
    states = [torch.load(load(name).path / "iter-24-ckpt.pth", weights_only=True) for name in ("whole", "rungs")]
    assert {"optimizer_states", "lr_schedulers"} & states[0].keys() or "optim" in " ".join(states[0])
    for key in states[0].keys() - {"callbacks", "run_id", "time"}:
        assert str(states[0][key]) == str(states[1][key]), key


def test_a_trial_below_the_median_is_paused_at_an_evaluation_and_can_be_trained_on(home: object) -> None:
    whole = fit("whole")
    values = load("whole").log().select("step", "val_loss").drop_nulls().rows()
    others = [{step: value * 0.5 for step, value in values} | {24: math.nan} for _ in range(5)]
    fit("pruned", PauseBelowMedian(others, "val_loss", "min", "s"))
    run = load("pruned")
    assert (run.status, run.details.step) == ("stopped", 4)
    assert is_pruned(run)
    assert run.details.reason == "Paused at step 4 of the sweep 's' by the pruner."
    promoted = fit("pruned", resume=True)
    assert all(torch.equal(whole[key], promoted[key]) for key in whole)
    worse = [{step: value * 2 for step, value in values} for _ in range(5)]
    fit("kept", PauseBelowMedian(worse, "val_loss", "min", "s"))
    assert load("kept").status == "finished"


def test_the_median_remembers_what_a_resumed_trial_had_reached(home: object) -> None:
    fit("whole")
    values = dict(load("whole").log().select("step", "val_loss").drop_nulls().rows())
    fit("it", PauseAt(12, "s"))
    assert values[16] * 1.01 < max(values.values())
    others = [{16: values[16] * 1.01} for _ in range(5)]  # better than the trial's value at 16, but not than its best
    fit("it", PauseBelowMedian(others, "val_loss", "max", "s"), resume="auto")
    assert load("it").status == "finished", "its best value, from before it was paused, counts"


def test_the_sweep_is_recorded_in_the_run(home: object) -> None:
    facts = {"group": "s", "sweep": {"name": "s", "trial": 3}}
    fit("it", RecordLineage(facts), PauseAt(4, "s"))
    before = load("it").info
    assert {key: before[key] for key in facts} == facts
    fit("it", RecordLineage(facts), resume="auto")
    after = load("it").info
    assert {key: after[key] for key in ("id", *facts)} == {key: before[key] for key in ("id", *facts)}
    assert len(after["continued"]) == 1


def test_a_run_that_diverged_has_reached_its_end(home: object) -> None:
    with pytest.raises(NonFiniteLossError):
        fit("it", lr=1e30, optimizer="sgd", scheduler="constant", warmup_step=0, ema_decay=0.0)
    assert load("it").details.step < 24
    assert has_diverged(load("it"))
    assert has_reached(load("it"), 24)


class Own(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any) -> torch.Tensor:
        return (self.layer(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def test_what_lightnings_own_loop_trains_cannot_be_paused_but_belongs_to_a_sweep(home: object) -> None:
    settings: dict[str, Any] = {**QUIET, "max_step": 4, "batch_size": 8}
    with pytest.raises(ConfigError, match=r"Give sweep.pruner=none"):
        darkit.fit(Own(), DATA["train"], name="no", callbacks=[PauseAt(2, "s")], **settings)
    darkit.fit(Own(), DATA["train"], name="it", callbacks=[RecordLineage({"group": "s"})], **settings)
    assert load("it").info["group"] == "s"
