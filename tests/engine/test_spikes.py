"""A training that returns to its last good checkpoint after a loss spike and skips the batches."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import darkit
from darkit.cli.main import main
from darkit.core.watching import watch
from darkit.engine.callbacks import LossSpikeGuard
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.config import TrainerConfig
from darkit.engine.spikes import refuse_spike_policy
from darkit.errors import ConfigError, RunLockedError
from darkit.runs import Run
from darkit.runs.checkpoints import Checkpoint
from darkit.runs.lock import is_locked
from darkit.runs.requests import request_stop
from darkit.runs.spikes import recorded_spikes
from tests.children import Child, Zygote

SETTINGS: dict[str, Any] = {
    "spike_policy": "rewind",
    "spike_window": 6,
    "save_step_interval": 4,
    "max_step": 24,
    "batch_size": 2,
    "device": "cpu",
    "lr": 1e-3,
    "spike_threshold": 1000,
}


class Numbers(Dataset[tuple[Tensor, Tensor]]):
    """Samples with their number; those of the poisoned numbers have a target far away."""

    def __init__(self, length: int = 80, poisoned: tuple[int, ...] = ()) -> None:
        self.length, self.poisoned = length, poisoned

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(3, generator=generator)
        return torch.cat([x, torch.tensor([float(index)])]), x * (1000 if index in self.poisoned else 2)


class Model(nn.Module):
    """Its steps tell the number of the first sample, and its dropout draws."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        return {"loss": (self.layers(x[:, :3]) - y).square().mean(), "first": x[0, 3]}


class StopAt(lightning.Callback):
    """Stop after a step, the first time."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.steps == self.step:
            self.step = -1
            trainer.should_stop = True


def trained(name: str, poisoned: tuple[int, ...], **settings: Any) -> Run:
    torch.manual_seed(0)
    return darkit.fit(Model(), Numbers(poisoned=poisoned), name=name, **SETTINGS | settings)


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The first sample of each step without a spike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARWIN_KIT_HOME", str(tmp_path_factory.mktemp("order")))
        return [int(first) for first in trained("plain", (), spike_policy="none").log()["first"]]


def rows(run: Run) -> list[tuple[Any, ...]]:
    return run.log().select("step", "train_loss", "first").rows()


def equal_at_the_end(one: Run, other: Run) -> None:
    assert rows(one) == rows(other)
    first, second = (read_run_checkpoint(run.path)[1] for run in (one, other))
    assert all(torch.equal(first["state_dict"][key], second["state_dict"][key]) for key in first["state_dict"])
    assert first["position"] == second["position"]
    guards = [content["callbacks"]["LossSpikeGuard"] for content in (first, second)]
    assert guards[0] == guards[1]


def test_the_batches_since_the_checkpoint_are_skipped_and_the_history_repeats_bit_for_bit(
    order: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("run", (order[13],))  # of step 14
    assert run.status == "finished"
    log = run.log()
    assert log["step"].to_list() == list(range(1, 25))
    assert [int(first) for first in log["first"]][:18] == order[:12] + order[14:20]
    assert log["train_loss"].max() < 1000
    (spike,) = recorded_spikes(run.info)
    assert (spike.step, spike.noticed, spike.resumed, spike.skipped) == (14, 14, 12, ((0, 12), (0, 14)))
    (entry,) = run.info["spikes"]
    assert entry["checkpoint"] == "iter-12-ckpt"
    assert entry["losses"] == log["train_loss"].to_list()[7:12] + entry["losses"][5:]
    assert [one["after_step"] for one in run.info["continued"]] == [12]
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [4, 8, 12, 16, 20, 24]
    equal_at_the_end(run, trained("again", (order[13],)))
    assert main(["show", "run"]) == 0
    assert "returned to step 12 and skipped the batches 13 of epoch 0 to 14" in capsys.readouterr().out


@pytest.mark.parametrize("stop_at", [13, 14, 15, 22])
def test_a_training_that_was_stopped_in_between_comes_to_the_same(order: list[int], stop_at: int) -> None:
    poisoned = (order[13],)
    straight = trained("straight", poisoned)
    trained("broken", poisoned, callbacks=[StopAt(stop_at)])
    resumed = trained("broken", poisoned, resume=True)
    equal_at_the_end(straight, resumed)
    told = [[{**one, "sha256": ""} for one in run.info["spikes"]] for run in (straight, resumed)]
    assert told[0] == told[1]


def test_two_stops_between_checkpoints_leave_the_one_to_return_to(order: list[int]) -> None:
    poisoned, settings = (order[16],), {"keep_last": 2, "save_step_interval": 10}
    straight = trained("straight", poisoned, **settings)
    trained("broken", poisoned, callbacks=[StopAt(12)], **settings)
    trained("broken", poisoned, callbacks=[StopAt(14)], resume=True, **settings)
    resumed = trained("broken", poisoned, resume=True, **settings)
    assert [one["checkpoint_step"] for one in resumed.info["spikes"]] == [10]
    equal_at_the_end(straight, resumed)


KILLED = """
import os
import darkit.engine.training
from tests.engine import test_spikes
original = darkit.engine.training.load_weights
def load_weights(*arguments, **settings):  # of the training that begins again
    {}
    original(*arguments, **settings)
darkit.engine.training.load_weights = load_weights
test_spikes.trained("killed", ({},))
"""
WAITING = """
    from pathlib import Path
    Path("{there}").touch()
    while not Path("{go}").exists():
        pass
"""


def test_a_training_killed_in_the_rewind_comes_to_the_same(order: list[int], zygote: Zygote, home: Path) -> None:
    assert zygote.run(KILLED.format("os._exit(9)", order[13]), home).wait() == 9
    assert darkit.load("killed").status == "crashed"
    resumed = trained("killed", (order[13],), resume=True)
    equal_at_the_end(trained("straight", (order[13],)), resumed)
    assert len(resumed.info["spikes"]) == 1


@contextmanager
def rewinding(zygote: Zygote, home: Path, number: int) -> Iterator[tuple[Child, Path]]:
    """Start a training that waits in its rewind for a file."""
    there, go = home / "there", home / "go"
    child = zygote.run(KILLED.format(WAITING.format(there=there, go=go), number), home)
    try:
        while not there.exists():
            pass
        yield child, go
    finally:
        child.kill_rest()


def test_a_training_is_running_and_locked_while_it_is_rewound_and_watched_on(
    order: list[int], zygote: Zygote, home: Path
) -> None:
    seen: list[int] = []
    with rewinding(zygote, home, order[13]) as (child, go):
        run = darkit.load("killed")
        assert (run.status, is_locked(run.path)) == ("running", True)
        with pytest.raises(RunLockedError):
            trained("killed", (order[13],), resume="auto")

        def evaluate(checkpoint: Checkpoint) -> dict[str, Any]:
            seen.append(checkpoint.step)
            if checkpoint.step == 12:  # all that there are
                go.touch()
            return {"val_loss": 1.0}

        watch(run, evaluate, into="seen", config={}, tell=lambda *_: None, pause=0.01)
        assert child.wait() == 0, child.output
    assert (run.status, run.details.step, seen) == ("finished", 24, [4, 8, 12, 16, 20, 24])


def test_a_request_during_the_rewind_stops_the_training(order: list[int], zygote: Zygote, home: Path) -> None:
    with rewinding(zygote, home, order[13]) as (child, go):
        request_stop(darkit.load("killed").path, by="me")
        go.touch()
        assert child.wait() == 0, child.output
    details = darkit.load("killed").details
    assert (details.state, details.reason) == ("stopped", "Stopped by me.")
    assert details.step == 13


def test_a_signal_during_the_rewind_stops_the_training(order: list[int], zygote: Zygote, home: Path) -> None:
    with rewinding(zygote, home, order[13]) as (child, _):
        child.send(signal.SIGTERM)
        assert child.wait() == 128 + signal.SIGTERM, child.output
    run = darkit.load("killed")
    assert (run.status, run.details.reason, is_locked(run.path)) == ("stopped", "Stopped by SIGTERM.", False)
    resumed = trained("killed", (order[13],), resume=True)
    equal_at_the_end(trained("straight", (order[13],)), resumed)


def test_an_error_during_the_rewind_is_a_crash(order: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def load_weights(*arguments: Any) -> None:
        raise MemoryError("mine")

    monkeypatch.setattr("darkit.engine.training.load_weights", load_weights)
    with pytest.raises(MemoryError):
        trained("run", (order[13],))
    run = darkit.load("run")
    assert (run.status, is_locked(run.path)) == ("crashed", False)
    assert "mine" in run.details.reason


def test_further_spikes_are_rewound_up_to_the_limit_and_early_ones_only_reported(
    order: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("run", (order[13], order[16], order[19]), spike_limit=2)
    assert [(one["step"], one["checkpoint_step"]) for one in run.info["spikes"]] == [(14, 12), (15, 12)]
    assert "The training was rewound 2 times and goes on (spike_limit=2)" in capsys.readouterr().err
    run = trained("early", (order[6],), save_step_interval=10)
    assert "spikes" not in run.info
    assert "There is no checkpoint before it, so the training goes on." in capsys.readouterr().err


def test_settings_that_a_resume_changed_hold_after_a_rewind_to_a_checkpoint_before_it(order: list[int]) -> None:
    trained("run", (order[13],), max_step=12)
    changed: dict[str, Any] = {"lr": 5e-4, "resume_overrides": True, "log_step_interval": 1}
    run = trained("run", (order[13],), resume=True, **changed)
    assert [one["checkpoint_step"] for one in run.info["spikes"]] == [12]
    assert run.log()["lr"].to_list() == [1e-3] * 12 + [5e-4] * 12
    for path in run.path.glob("iter-*"):
        if int(path.name.split("-")[1]) > 12:
            path.unlink()
    again = trained("run", (order[13],), resume=True, **changed | {"resume_overrides": False})
    assert again.log()["lr"].to_list() == [1e-3] * 12 + [5e-4] * 12, "killed before its first checkpoint"


def test_a_schedule_by_epochs_passes_the_end_of_an_epoch_that_is_skipped() -> None:
    def train(name: str, poisoned: tuple[int, ...]) -> Run:
        torch.manual_seed(0)
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        halved = (torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), "epoch")
        settings = SETTINGS | {"save_step_interval": 8, "max_step": 20, "log_step_interval": 1}
        data = Numbers(length=20, poisoned=poisoned)
        return darkit.fit(model, data, name=name, optimizer=optimizer, scheduler=halved, **settings)

    second = int(train("usual", ()).log()["first"][10])  # of the first step of the second epoch
    run = train("run", (second,))
    assert (8, (1, 1)) in [(one.resumed, one.skipped[1]) for one in recorded_spikes(run.info)]
    rates = dict(run.log().select("step", "lr").rows())
    assert (rates[8], rates[9]) == (1e-2, 5e-3)


def test_it_is_refused_where_it_cannot_be_honoured() -> None:
    for settings, why in (
        ({"save_step_interval": 0}, "give save_step_interval"),
        ({"keep_last": 1}, "give keep_last=2 or more"),
        ({"keep_best": 1, "monitor": "train_loss"}, "give keep_last=2 or more"),
        ({"keep_optimizer": "last"}, "leave out keep_optimizer"),
    ):
        with pytest.raises(ConfigError, match=why):
            trained("run", (), **settings)
    with pytest.raises(ConfigError, match="spike_policy is not possible beside the callback EarlyStopping"):
        trained("run", (), callbacks=[lightning.pytorch.callbacks.EarlyStopping("train_loss")])
    with pytest.raises(ConfigError, match="leave out the one in callbacks"):
        trained("run", (), callbacks=[LossSpikeGuard()])
    assert darkit.runs() == []


@pytest.mark.parametrize(("every", "last"), [(2, 5), (3, 4), (4, 3), (8, 2), (100, 2)])
def test_on_an_accelerator_enough_checkpoints_are_kept_to_return_after_the_lag(every: int, last: int) -> None:
    def check(device: str, last: int | None) -> None:
        config = TrainerConfig(device=device, spike_policy="rewind", save_step_interval=every, keep_last=last)
        refuse_spike_policy(config, 1, (), own_session=False)

    check("cuda", last)
    check("cuda", None)
    if every < 8 or last > 2:
        check("cpu", last - 1)
        with pytest.raises(ConfigError, match=f"8 steps later on an accelerator, .* give keep_last={last} or more"):
            check("cuda", last - 1)


def test_what_anybody_wrote_as_spikes_is_read_as_far_as_it_is_one() -> None:
    good = {
        "step": 3,
        "noticed": 4,
        "checkpoint_step": 2,
        "loss": 9.0,
        "z": 11,
        "skipped": {"from": {"epoch": 0, "batches": 2}, "to": {"epoch": 1, "batches": 0}},
    }
    odd = [good | {"step": True}, good | {"loss": "x"}, good | {"skipped": []}, 3, json.loads("[1e999]")]
    assert [one.step for one in recorded_spikes({"spikes": [*odd, good]})] == [3]
    assert recorded_spikes({"spikes": 3}) == recorded_spikes({}) == []
