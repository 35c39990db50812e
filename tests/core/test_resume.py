"""A hand-written loop that resumes a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, StepLR

import darkit
from darkit.core import Trainer
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.errors import CheckpointMismatchError, ConfigError, RunExistsError
from darkit.runs.checkpoints import find_checkpoint
from tests.core.parts import Loop, LoopConfig, loop, net, samples, saved


class Random(Loop):
    """Draws its batches and a noise, and ends before ``until``; it starts where its trainer says."""

    until = 99
    seen: list[int]

    def make_schedule(self) -> Any:
        return StepLR(self.optimizer, 2, 0.5)

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        x, y = train_dataset.tensors
        self.optimizer = self._get_optimizer()
        self.scheduler = self.make_schedule()
        self.seen = []
        for step in range(self.current_step, min(self.until, self.max_step)):
            self.seen.append(step)
            chosen = torch.randint(len(x), (4,))
            loss = F.mse_loss(self.model(x[chosen]) + 0.1 * torch.randn(4, 1), y[chosen])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.current_step = step
            self.log(step=step + 1, train_loss=loss, lr=self.scheduler.get_last_lr()[0])
            self._auto_save_pretrained()


class Short(Random):
    until = 4


class Lambda(Random):
    def make_schedule(self) -> Any:
        return LambdaLR(self.optimizer, lambda step: 0.9**step)


class ShortLambda(Lambda):
    until = 4


class NoState(Random):
    def _get_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


def state(name: str, step: int = 6) -> dict[str, Any]:
    return read_checkpoint(find_checkpoint(darkit.load(name).path, step))


def rows(name: str) -> list[dict[str, Any]]:
    return darkit.load(name).log().drop("time").to_dicts()


@pytest.mark.parametrize(("whole", "short"), [(Random, Short), (Lambda, ShortLambda)])
def test_a_loop_that_draws_its_batches_resumes_bit_for_bit(whole: type[Trainer], short: type[Trainer]) -> None:
    loop(whole, name="straight").train(samples(24))
    loop(short, name="broken").train(samples(24))
    assert saved("broken") == [4]
    trainer = loop(whole, name="broken", resume=True)
    torch.manual_seed(77)
    trainer.train(samples(24))
    assert trainer.seen == [4, 5]
    assert list(differences(state("straight"), state("broken"))) == []
    assert rows("straight") == rows("broken")
    run = darkit.load("broken")
    assert (run.status, run.details.step) == ("finished", 6)
    assert [entry["after_step"] for entry in run.info["continued"]] == [4]


def test_resuming_from_an_earlier_checkpoint_sets_the_later_ones_aside_and_cuts_the_log() -> None:
    loop(Random, name="straight", save_step_interval=2).train(samples(24))
    expected, log = state("straight"), rows("straight")
    trainer = loop(Random, name="straight", resume="straight:iter-2-ckpt", save_step_interval=2)
    trainer.train(samples(24))
    assert trainer.seen == [2, 3, 4, 5]
    assert list(differences(expected, state("straight"))) == []
    assert rows("straight") == log
    aside = darkit.load("straight").path / "superseded"
    assert sorted(path.name for path in aside.glob("*.pth")) == ["iter-4-ckpt.pth", "iter-6-ckpt.pth"]


def test_a_loop_that_starts_too_early_gets_one_error_and_nothing_of_the_run_changes() -> None:
    loop(name="hand", max_step=4).train(samples(16))
    before = rows("hand")
    with pytest.raises(
        ConfigError, match=r"resumes after 4 steps, so its loop must start at self\.current_step, which "
    ):
        loop(name="hand", resume=True).train(samples(24))
    assert saved() == [4]
    assert rows("hand") == before
    assert darkit.load("hand").status == "crashed"


def test_another_name_starts_a_new_run_from_the_weights_alone() -> None:
    loop(Random, name="one").train(samples(24))
    trained = state("one")["state_dict"]
    seen: list[dict[str, Tensor]] = []

    class Looking(Random):
        def make_schedule(self) -> Any:
            seen.append({key: value.clone() for key, value in self.model.state_dict().items()})
            assert not self.optimizer.state
            return super().make_schedule()

    trainer = loop(Looking, name="two", resume="one")
    trainer.train(samples(24))
    assert trainer.seen == [0, 1, 2, 3, 4, 5]
    assert list(differences(seen[0], dict(trained))) == []
    assert darkit.load("one").details.step == darkit.load("two").details.step == 6


def test_auto_starts_a_run_and_resumes_it() -> None:
    loop(Short, name="auto", resume="auto").train(samples(24))
    assert saved("auto") == [4]
    trainer = loop(Random, name="auto", resume="auto")
    trainer.train(samples(24))
    assert trainer.seen == [4, 5]


def test_other_settings_are_refused_key_by_key_unless_they_are_allowed() -> None:
    loop(Short).train(samples(24))
    with pytest.raises(ConfigError, match=r"other settings: batch_size 4 -> 8, lr 0\.001 -> 0\.5\. Give the"):
        loop(Random, resume=True, batch_size=8, lr=0.5).train(samples(24))
    config = LoopConfig(name="hand", batch_size=8)
    Random(net(), config, resume=True, resume_overrides=True).train(samples(24))
    assert darkit.load("hand").info["continued"][0]["changes"] == {"batch_size": [4, 8]}


def test_an_optimizer_of_another_class_is_refused_by_what_it_has() -> None:
    loop(Short).train(samples(24))
    with pytest.raises(CheckpointMismatchError, match="optimizer is another than this SGD"):
        loop(NoState, resume=True).train(samples(24))


def test_nothing_can_be_written_before_train_resumes() -> None:
    loop(Short).train(samples(24))
    before = rows("hand")
    trainer = loop(Random, resume=True)
    for write in (trainer.save_pretrained, lambda: trainer.log(step=9), lambda: trainer.save_pretrained()):
        with pytest.raises(ConfigError, match=r"resume= takes effect when train\(\) is called"):
            write()
    assert rows("hand") == before
    trainer.train(samples(24))
    assert saved() == [4, 6]


def test_saving_before_the_first_step_saves_the_step_it_resumes_from() -> None:
    loop(Short).train(samples(24))

    class Eager(Random):
        def make_schedule(self) -> Any:
            assert self.save_pretrained().name == "iter-4-ckpt.pth"
            return super().make_schedule()

    loop(Eager, resume=True).train(samples(24))
    assert saved() == [4, 6]


def test_a_train_that_calls_the_engines_resumes_as_the_engine_does() -> None:
    class Around(Trainer):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> Any:
            return super().train(train_dataset, val_dataset)

    for name, steps in (("straight", (6,)), ("broken", (3, 6))):
        for step in steps:
            config = LoopConfig(name=name, max_step=step, save_step_interval=3)
            resume = "auto" if name == "broken" else None
            Around(net(), config, loss=F.mse_loss, resume=resume).train(samples(20))
    assert list(differences(state("straight"), state("broken"))) == []
    assert rows("straight") == rows("broken")
    assert len(darkit.load("broken").info["continued"]) == 1


def test_an_existing_name_without_resume_is_refused() -> None:
    loop(Short).train(samples(24))
    with pytest.raises(RunExistsError):
        loop(Random)
