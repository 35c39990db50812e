"""What is saved of a hand-written loop, and when."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darkit
from darkit.core import Trainer
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.errors import NonFiniteLossError
from darkit.runs import base
from tests.core.parts import Logging, Loop, LoopConfig, loop, net, samples, saved

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("max_step", "every", "batches", "expected"),
    [
        (6, 2, 6, [2, 4, 6]),
        (6, 4, 6, [4, 6]),
        (6, 0, 6, [6]),
        (6, 100, 6, [6]),
        (6, 1, 3, [1, 2, 3]),
        (6, 2, 3, [2, 3]),
        (100, 0, 5, [5]),
        (3, 2, 6, [2, 3]),
        (1, 0, 6, [1]),
    ],
)
def test_checkpoints_come_at_the_due_steps_and_at_the_last(
    max_step: int, every: int, batches: int, expected: list[int]
) -> None:
    loop(max_step=max_step, save_step_interval=every).train(samples(4 * batches))
    assert saved() == expected
    assert darkit.load("hand").status == "finished"


def test_no_data_leaves_a_finished_run_without_a_checkpoint() -> None:
    loop().train([])
    run = darkit.load("hand")
    assert (run.status, run.details.step, run.checkpoints()) == ("finished", 0, [])


def test_a_checkpoint_holds_weights_optimizer_generators_and_step() -> None:
    trainer = loop()
    trainer.train(samples(24))
    run = darkit.load("hand")
    content = torch.load(run.path / "iter-6-ckpt.pth", weights_only=True)
    assert content["current_step"] == 6
    assert content["model_class"] == "tests.core.parts.Net"
    assert all(torch.equal(value, trainer.model.state_dict()[key]) for key, value in content["state_dict"].items())
    assert content["optimizer_state_dict"]["state"][0]["step"] == 6
    assert torch.equal(content["rng"]["torch"], torch.get_rng_state())
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.sha256
    assert read_checkpoint(latest)["current_step"] == 6


def test_a_loop_without_an_optimizer_attribute_is_saved_too() -> None:
    class Bare(Trainer):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            self._auto_save_pretrained()

    Bare(net(), LoopConfig(name="hand", max_step=1)).train(samples(4))
    content = torch.load(base() / "hand" / "iter-1-ckpt.pth", weights_only=True)
    assert content["optimizer_state_dict"] is None


def test_a_schedule_called_scheduler_is_in_the_checkpoint() -> None:
    class Scheduled(Loop):
        def on_batch(self, step: int) -> None:
            if step == 0:
                self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)

        def on_step(self, step: int, loss: Tensor) -> None:
            self.scheduler.step()

    loop(Scheduled).train(samples(24))
    content = torch.load(base() / "hand" / "iter-6-ckpt.pth", weights_only=True)
    assert content["scheduler_state_dict"]["last_epoch"] == 6


def test_a_loop_that_counts_after_saving_is_saved_at_the_same_steps() -> None:
    class Counting(Loop):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            self.current_step = 0
            while self.current_step < len(train_dataset):
                self._auto_save_pretrained()
                self.current_step += 1

    loop(Counting, save_step_interval=2).train([1, 2, 3, 4, 5])
    assert saved() == [2, 4, 5]
    assert darkit.load("hand").details.step == 5


def test_steps_after_max_step_are_warned_of_once_and_not_saved(caplog: pytest.LogCaptureFixture) -> None:
    loop(max_step=2, save_step_interval=1).train(samples(24))
    assert saved() == [1, 2]
    assert [record.message for record in caplog.records] == [
        "The loop continues after max_step (2); later steps are not saved."
    ]


def test_saving_now_saves_the_step_that_was_just_done() -> None:
    class Now(Loop):
        def on_step(self, step: int, loss: Tensor) -> None:
            if step == 2:
                assert self.save_pretrained() == self.save_directory / "iter-3-ckpt.pth"

    loop(Now).train(samples(24))
    assert saved() == [3, 6]


def test_saving_an_untrained_model_is_step_zero() -> None:
    trainer = loop()
    assert trainer.save_pretrained().name == "iter-0-ckpt.pth"
    trainer.train(samples(24))
    assert saved() == [0, 6]


def test_saving_after_the_end_saves_the_last_step_again_and_leaves_the_run_finished() -> None:
    trainer = loop(Logging)
    trainer.train(samples(24))
    ended = darkit.load("hand").details
    with torch.no_grad():
        trainer.model.layers[0].bias.fill_(7.0)
    assert trainer.save_pretrained().name == "iter-6-ckpt.pth"
    run = darkit.load("hand")
    assert run.details == ended
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    assert (read_checkpoint(checkpoint)["state_dict"]["layers.0.bias"] == 7.0).all()
    assert checkpoint.metrics.keys() == {"train_loss"}
    assert len(run.log()) == 6


def test_a_checkpoint_has_the_values_logged_at_its_step_and_no_older_ones() -> None:
    class Told(Logging):
        def on_step(self, step: int, loss: Tensor) -> None:
            super().on_step(step, torch.tensor(float(step)))
            if step == 1:
                self.log(best=5)

    loop(Told, save_step_interval=2, max_step=4).train(samples(16))
    assert [checkpoint.metrics for checkpoint in darkit.load("hand").checkpoints()] == [
        {"train_loss": 1.0, "best": 5.0},
        {"train_loss": 3.0},
    ]


class Spoiling(Loop):
    """Its weights are not finite from the third step on."""

    def on_step(self, step: int, loss: Tensor) -> None:
        if step == 2:
            with torch.no_grad():
                self.model.layers[0].bias[0] = torch.nan


@pytest.fixture(params=[False, True])
def processes(request: pytest.FixtureRequest) -> Any:
    """Whether the process belongs to a group of processes, as the loops of several do."""
    if request.param:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    if request.param:
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("processes")
def test_weights_that_are_not_finite_are_not_saved_and_the_checkpoint_before_is_kept() -> None:
    with pytest.raises(NonFiniteLossError, match=r"'layers\.0\.bias' is not finite after step 3"):
        loop(Spoiling, save_step_interval=1).train(samples(24))
    assert saved() == [1, 2]
    assert darkit.load("hand").status == "crashed"


def test_weights_that_are_not_finite_are_saved_after_one_warning_if_configured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop(Spoiling, save_step_interval=1, nan_policy="warn").train(samples(24))
    assert saved() == [1, 2, 3, 4, 5, 6]
    assert len([record for record in caplog.records if "is not finite" in record.message]) == 1


def test_a_full_disk_is_a_crash_that_leaves_the_old_files_whole(python: str) -> None:
    program = """
    import resource, torch
    from tests.core.parts import Loop, LoopConfig, net, samples

    class Growing(Loop):
        def on_step(self, step, loss):
            if step == 2:
                self.model.register_buffer("large", torch.zeros(1_000_000))

    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    Growing(net(), LoopConfig(name="full", save_step_interval=2)).train(samples(24))
    """
    command = [python, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=CHECKOUT)
    assert "StorageError" in done.stderr.splitlines()[-1]
    run = darkit.load("full")
    assert run.status == "crashed"
    assert "StorageError" in run.details.reason
    assert saved("full") == [2]
    content = torch.load(run.path / "iter-2-ckpt.pth", weights_only=True)
    manifest = json.loads((run.path / "iter-2-ckpt.json").read_text())
    assert content["current_step"] == manifest["step"] == 2
    assert not [path for path in run.path.iterdir() if ".tmp-" in path.name]
