"""Checkpoints of a training, evaluated once each by another process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import darkit
from darkit.core.watching import watch
from darkit.errors import CheckpointCorruptError, ConfigError, RunReplacedError
from darkit.runs import files
from darkit.runs.checkpoints import Checkpoint
from tests.children import Zygote

TRAINING = """
import lightning, torch, darkit
from pathlib import Path
class Wait(lightning.Callback):  # after step 3, until the checkpoint of step 2 is evaluated
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        while trainer.global_step == 3 and not Path("{go}").exists():
            pass
data = (torch.randn(32, 3), torch.randn(32, 3))
darkit.fit(torch.nn.Linear(3, 3), data, loss=torch.nn.functional.mse_loss, name="run", max_step=6, batch_size=4,
    save_step_interval=2, device="cpu", callbacks=[Wait()], project="p")
"""
EVALUATION = """
import os, signal, darkit
from darkit.core.watching import watch
def evaluate(checkpoint):
    if checkpoint.step == 4:
        os.kill(os.getpid(), signal.SIGTERM)
    return {"val_loss": float(checkpoint.step)}
watch(darkit.load("run"), evaluate, into="seen", config={"data": "x"}, tell=print)
"""


def test_each_checkpoint_is_evaluated_once_while_it_trains_and_the_end_of_the_training_ends_it(
    zygote: Zygote, home: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    training = zygote.run(TRAINING.format(go=go), home)
    while not (home / "base/run" / files.RUN).exists():
        pass
    run, seen, told = darkit.load("run"), [], []

    def evaluate(checkpoint: Checkpoint) -> dict[str, Any]:
        seen.append((checkpoint.step, run.status))
        go.touch()
        return {"val_loss": checkpoint.step / 8}

    watch(run, evaluate, into="seen", config={"data": "x"}, tell=lambda one, _: told.append(one.step), pause=0.01)
    assert training.wait() == 0, training.output
    assert seen[0] == (2, "running")
    assert [step for step, _ in seen] == told == [2, 4, 6]
    found = darkit.load("seen")
    assert found.log().select("step", "val_loss").rows() == [(2, 0.25), (4, 0.5), (6, 0.75)]
    assert (found.status, found.info["project"]) == ("finished", "p")
    assert found.config == {"evaluates": "run", "id": run.info["id"], "data": "x"}

    watch(run, evaluate, into="seen", config={"data": "x"}, tell=lambda *_: None)
    assert len(seen) == 3
    with pytest.raises(ConfigError, match="'seen' has something other than these evaluations"):
        watch(run, evaluate, into="seen", config={"data": "y"}, tell=lambda *_: None)
    with pytest.raises(ConfigError, match="'run' has something other"):
        watch(run, evaluate, into="run", config={"data": "x"}, tell=lambda *_: None)

    child = zygote.run(EVALUATION.replace("seen", "stopped"), home)
    assert child.wait() == 128 + 15, child.output
    stopped = darkit.load("stopped")
    assert (stopped.status, stopped.log()["step"].to_list()) == ("stopped", [2, 4])

    def damaged(checkpoint: Checkpoint) -> dict[str, Any]:
        seen.append((checkpoint.step, ""))
        raise CheckpointCorruptError("It is damaged.")

    said: list[Any] = []
    watch(run, damaged, into="stopped", config={"data": "x"}, tell=lambda one, why: said.append((one.step, why)))
    assert said == [(6, "It is damaged.")]
    assert json.loads((stopped.path / files.STATUS).read_text())["state"] == "finished"


@pytest.mark.parametrize("changed", [False, True])
def test_a_checkpoint_that_is_made_again_with_other_weights_is_refused(changed: bool, home: Path) -> None:
    data = (torch.randn(16, 3), torch.randn(16, 3))

    def trained(**options: Any) -> darkit.Run:
        torch.manual_seed(1)
        settings: dict[str, Any] = {"max_step": 8, "save_step_interval": 2, "batch_size": 4, "device": "cpu"}
        return darkit.fit(
            torch.nn.Linear(3, 3), data, loss=torch.nn.functional.mse_loss, name="run", **settings | options
        )

    def evaluate(checkpoint: Checkpoint) -> dict[str, Any]:
        seen.append(checkpoint.step)
        weights = torch.load(checkpoint.path, weights_only=True)["state_dict"]
        return {"val_loss": float(weights["weight"].sum()), "of_nothing": float("nan")}

    def watched() -> darkit.Run:
        return watch(darkit.load("run"), evaluate, into="seen", config={}, tell=lambda *told_of: None)

    seen: list[int] = []
    run = trained()
    before = watched().log().select("step", "val_loss").rows()
    options: dict[str, Any] = {"lr": 0.1, "resume_overrides": True} if changed else {"log_step_interval": 3}
    trained(resume="run:iter-4", max_step=10, **options)
    if changed:
        with pytest.raises(ConfigError, match=r"made another iter-6-ckpt .* in 'seen': give another name with --into"):
            watched()
        assert darkit.load("seen").log().select("step", "val_loss").rows() == before
        with pytest.raises(ConfigError, match="made another iter-6-ckpt"):
            watched()
        return
    assert watched().log()["step"].to_list() == [2, 4, 6, 8, 10]
    assert seen[4:] in ([6, 8, 10], [10])  # again where the files differ
    watched()
    assert seen[-1] == 10
    assert run.status == "finished"


def test_a_run_that_is_replaced_meanwhile_ends_it_and_what_cannot_be_verified_is_told(home: Path) -> None:
    data = (torch.randn(16, 3), torch.randn(16, 3))

    def trained(name: str) -> darkit.Run:
        settings: dict[str, Any] = {"max_step": 6, "save_step_interval": 2, "batch_size": 4, "device": "cpu"}
        return darkit.fit(torch.nn.Linear(3, 3), data, loss=torch.nn.functional.mse_loss, name=name, **settings)

    run = trained("run")
    told: list[Any] = []

    def replacing(checkpoint: Checkpoint) -> dict[str, Any]:
        shutil.rmtree(run.path)
        trained("run")
        return {"val_loss": 1.0}

    with pytest.raises(RunReplacedError, match="'run' is no longer the one that was watched"):
        watch(run, replacing, into="seen", config={}, tell=lambda *told_of: None)
    assert darkit.load("seen").log()["step"].to_list() == [2]
    other = trained("other")
    (other.path / "iter-2-ckpt.json").unlink()
    (other.path / "iter-6-ckpt.json").unlink()
    watch(
        other, lambda one: {"val_loss": 1.0}, into="rest", config={}, tell=lambda one, why: told.append((one.step, why))
    )
    assert [step for step, _ in told] == [4, 6]
    assert "manifest" in told[1][1]
