"""The run around a hand-written loop, from its creation to its outcome."""

from __future__ import annotations

import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darkit
from darkit.core import Trainer
from tests.children import Zygote
from tests.core.parts import Logging, Loop, LoopConfig, loop, net, samples, saved

CHECKOUT = Path(__file__).parents[2]


class Watching(Logging):
    """Reads its status, and raises `error`."""

    error: BaseException | None = None
    seen: str = ""

    def on_batch(self, step: int) -> None:
        if step == 3:
            self.seen = darkit.load("hand").status
            if self.error is not None:
                raise self.error


@pytest.mark.parametrize("with_block", [True, False])
def test_a_run_is_running_in_the_loop_and_finished_after_it(with_block: bool) -> None:
    trainer = loop(Watching)
    with trainer if with_block else nullcontext(trainer) as same:
        assert same is trainer
        trainer.train(samples(24))
    assert trainer.seen == "running"
    details = darkit.load("hand").details
    assert (details.state, details.step, details.max_step, details.reason) == ("finished", 6, 6, "")


@pytest.mark.parametrize("with_block", [True, False])
def test_an_error_in_the_loop_is_a_crash_with_its_traceback_and_loses_no_row(with_block: bool) -> None:
    trainer = loop(Watching, save_step_interval=2)
    trainer.error = RuntimeError("the loop broke")
    with pytest.raises(RuntimeError, match="the loop broke"), trainer if with_block else nullcontext():
        trainer.train(samples(24))
    run = darkit.load("hand")
    assert run.status == "crashed"
    assert run.details.reason == "RuntimeError: the loop broke"
    assert "in on_batch" in run.details.traceback
    assert run.details.step == 3
    assert run.log()["step"].to_list() == [0, 1, 2]
    assert saved() == [2, 3]


def test_an_interruption_is_a_stop() -> None:
    trainer = loop(Watching)
    trainer.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        trainer.train(samples(24))
    assert darkit.load("hand").status == "stopped"
    assert len(darkit.load("hand").log()) == 3


def test_a_loop_in_the_with_block_is_recorded_like_one_in_train() -> None:
    with loop(save_step_interval=2) as trainer:
        for step in range(3):
            trainer.current_step = step
            trainer.log(step=step, train_loss=1.0)
            trainer._auto_save_pretrained()
            assert darkit.load("hand").status == "running"
    run = darkit.load("hand")
    assert (run.status, run.details.step) == ("finished", 3)
    assert saved() == [2, 3]
    assert len(run.log()) == 3


def test_an_error_in_the_with_block_is_a_crash() -> None:
    def block(trainer: Loop) -> None:
        with trainer:
            trainer.log(step=0)
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        block(loop())
    assert darkit.load("hand").status == "crashed"


def test_a_with_block_in_which_nothing_happens_leaves_no_run() -> None:
    with loop():
        pass
    assert darkit.runs() == []


def test_training_again_continues_the_same_run() -> None:
    trainer = loop(Logging, max_step=12)
    trainer.train(samples(12))
    with trainer:
        trainer.train(samples(24))
    run = darkit.load("hand")
    assert run.status == "finished"
    assert run.log()["step"].to_list() == [*range(3), *range(6)]
    assert saved() == [3, 6]


def test_a_train_from_a_mixin_is_recorded_too() -> None:
    class Recipe:
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            self.log(step=1)  # type: ignore[attr-defined]
            raise RuntimeError("in the mixin")

    class Mixed(Recipe, Trainer):
        pass

    with pytest.raises(RuntimeError):
        Mixed(net(), LoopConfig(name="hand")).train(samples(4))
    assert darkit.load("hand").details.reason == "RuntimeError: in the mixin"


def test_a_train_that_calls_the_one_above_it_ends_once() -> None:
    class Above(Loop):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> str:
            super().train(train_dataset)
            assert darkit.load("hand").status == "running"
            self.log(step=9)
            return "done"

    assert loop(Above).train(samples(24)) == "done"
    assert darkit.load("hand").status == "finished"
    assert darkit.load("hand").log()["step"].to_list() == [9]


def test_the_generators_are_seeded_from_the_config() -> None:
    class Drawing(Loop):
        def on_step(self, step: int, loss: Tensor) -> None:
            self.log(step=step, drawn=torch.rand(()))

    drawn = []
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        trainer = loop(Drawing, name=name, seed=seed)
        torch.manual_seed(99)
        trainer.train(samples(24))
        drawn.append(darkit.load(name).log()["drawn"].to_list())
    assert drawn[0] == drawn[1] != drawn[2]


SCRIPT = """
import sys
from tests.core.parts import LoopConfig, Loop, net

trainer = Loop(net(), LoopConfig(name="script", max_step=4))
for step in range(3):
    trainer.current_step = step
    trainer.log(step=step, train_loss=1.0)
    trainer._auto_save_pretrained()
    {ending}
"""


@pytest.mark.parametrize(
    ("ending", "state", "reason"),
    [
        ("pass", "finished", ""),
        ("if step == 2: raise RuntimeError('broke')", "crashed", "RuntimeError: broke"),
        ("if step == 2: raise KeyboardInterrupt", "stopped", "Interrupted from the keyboard."),
    ],
)
def test_the_exit_of_a_script_ends_its_run(ending: str, state: str, reason: str, zygote: Zygote, home: Path) -> None:
    program = textwrap.dedent(SCRIPT).format(ending=ending)
    zygote.run(program, home).wait()
    run = darkit.load("script")
    assert (run.status, run.details.reason) == (state, reason)
    assert run.log()["step"].to_list() == [0, 1, 2]
    if state == "finished":
        assert saved("script") == [3]
