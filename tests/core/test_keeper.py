"""What is kept around a hand-written loop: its saves, its log, and a true end."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import darkit
from darkit.core import LogFieldnames, Trainer
from darkit.engine.checkpoint import read_checkpoint
from darkit.errors import ConfigError, LogError, NonFiniteLossError
from darkit.runs import base
from tests.core.parts import Loop, LoopConfig, net, samples

CHECKOUT = Path(__file__).parents[2]


def loop(cls: type[Loop] = Loop, *, name: str = "hand", **settings: Any) -> Loop:
    arguments = {key: settings.pop(key) for key in ("log_fieldnames", "loss", "resume") if key in settings}
    return cls(net(), LoopConfig(name=name, **settings), **arguments)


def saved(name: str = "hand") -> list[int]:
    return [checkpoint.step for checkpoint in darkit.load(name).checkpoints()]


class Logging(Loop):
    """Logs every step as the guide does: a row whose step counts from 0, and a loss that is a tensor."""

    def on_step(self, step: int, loss: Tensor) -> None:
        self.csv_logger.log(LogFieldnames(step=step, train_loss=loss))


# Saves


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


def test_what_goes_on_after_max_step_is_told_once_and_not_saved(caplog: pytest.LogCaptureFixture) -> None:
    loop(max_step=2, save_step_interval=1).train(samples(24))
    assert saved() == [1, 2]
    assert [record.message for record in caplog.records] == [
        "The loop goes on after max_step (2): what it does from here is not saved."
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


def test_a_checkpoint_tells_the_values_that_were_logged_at_its_step_and_no_older_ones() -> None:
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


def test_weights_that_are_not_finite_are_not_saved_and_the_checkpoint_before_is_kept() -> None:
    with pytest.raises(NonFiniteLossError, match=r"'layers\.0\.bias' is not finite after step 3"):
        loop(Spoiling, save_step_interval=1).train(samples(24))
    assert saved() == [1, 2]
    assert darkit.load("hand").status == "crashed"


def test_weights_that_are_not_finite_are_saved_after_one_warning_if_the_config_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop(Spoiling, save_step_interval=1, nan_policy="warn").train(samples(24))
    assert saved() == [1, 2, 3, 4, 5, 6]
    assert len([record for record in caplog.records if "is not finite" in record.message]) == 1


# The log


def test_rows_that_a_loop_logs_are_all_there_in_order() -> None:
    losses: list[float] = []

    class Keeping(Logging):
        def on_step(self, step: int, loss: Tensor) -> None:
            super().on_step(step, loss)
            losses.append(loss.item())

    loop(Keeping).train(samples(24))
    log = darkit.load("hand").log()
    assert log["step"].to_list() == list(range(6))
    assert log["train_loss"].to_list() == losses
    assert log.columns == ["step", "epoch", "time", "lr", "train_loss", "val_loss"]


def test_logging_after_the_end_appends_and_leaves_the_run_finished() -> None:
    trainer = loop(Logging)
    trainer.train(samples(24))
    ended = darkit.load("hand").details
    trainer.log(step=6, test_loss=torch.tensor(0.5))
    run = darkit.load("hand")
    assert run.details == ended
    assert run.log()["test_loss"].to_list() == [None] * 6 + [0.5]


def test_columns_that_were_fixed_stay_fixed_after_the_end() -> None:
    trainer = loop(Logging, log_fieldnames=LogFieldnames)
    trainer.train(samples(24))
    with pytest.raises(LogError, match="no column 'test_loss'"):
        trainer.log(test_loss=1)
    assert len(darkit.load("hand").log()) == 6


def test_an_unknown_column_leaves_nothing_of_a_run_that_had_not_begun() -> None:
    class Misspelt(Loop):
        def on_step(self, step: int, loss: Tensor) -> None:
            self.log(step=step, train_los=loss)

    with pytest.raises(LogError, match="no column 'train_los'; did you mean 'train_loss'"):
        loop(Misspelt, log_fieldnames=LogFieldnames).train(samples(24))
    assert darkit.runs() == []
    assert not (base() / "hand").exists()


def test_a_mistake_after_the_first_row_keeps_what_was_logged_though_no_step_was_told() -> None:
    class Late(Trainer):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            self.log(step=1, train_loss=1.0)
            self.log(wrong=1)

    with pytest.raises(LogError, match="'wrong'"):
        Late(net(), LoopConfig(name="hand"), log_fieldnames=LogFieldnames).train(samples(4))
    run = darkit.load("hand")
    assert run.status == "crashed"
    assert run.log()["train_loss"].to_list() == [1.0]


def test_a_mistake_after_a_save_keeps_the_checkpoint() -> None:
    trainer = loop(log_fieldnames=LogFieldnames)
    trainer.save_pretrained()
    with pytest.raises(LogError), trainer:
        trainer.log(wrong=1)
    assert saved() == [0]
    assert darkit.load("hand").status == "crashed"


@pytest.mark.parametrize("tensorboard", [True, False])
def test_the_rows_go_to_tensorboard_as_well_if_the_config_says_so(tensorboard: bool) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop(Logging, tensorboard=tensorboard).train(samples(24))
    folder = base() / "hand" / "tensorboard"
    assert folder.is_dir() == tensorboard
    if tensorboard:
        events = EventAccumulator(str(folder))
        events.Reload()
        assert [event.step for event in events.Scalars("train_loss")] == list(range(6))


# Evaluation


class Validating(Loop):
    """Evaluates as the guide's loops do."""

    returned: list[Any]

    def on_batch(self, step: int) -> None:
        if step == 0:
            self.returned = []

    def on_step(self, step: int, loss: Tensor) -> None:
        self.returned.append(self._auto_validate([(torch.ones(3, 4), torch.ones(3, 1))]))


@pytest.mark.parametrize(("every", "due"), [(2, [2, 4, 5]), (0, [5]), (1, [1, 2, 3, 4, 5]), (9, [5])])
def test_evaluation_comes_at_the_due_steps_and_at_the_last_and_is_logged(every: int, due: list[int]) -> None:
    trainer = loop(Validating, eval_step_interval=every, max_step=5, loss=F.mse_loss)
    trainer.train(samples(20))
    assert [index + 1 for index, result in enumerate(trainer.returned) if result is not None] == due
    log = darkit.load("hand").log()
    assert log["step"].to_list() == due
    assert log["val_loss"].to_list() == [result["val_loss"] for result in trainer.returned if result]
    checkpoint = darkit.load("hand").latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.metrics == {"val_loss": trainer.returned[-1]["val_loss"]}


def test_the_evaluation_is_the_mean_over_samples_of_at_most_eval_iters_batches() -> None:
    trainer = loop(eval_iters=2, loss=F.mse_loss)
    x, y = samples(9).tensors
    batches = [(x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])]
    result = trainer.validate(batches)
    with torch.no_grad():
        assert result["val_loss"] == pytest.approx(F.mse_loss(trainer.model(x[:6]), y[:6]).item())
    trainer.config.eval_iters = 0
    with torch.no_grad():
        expected = F.mse_loss(trainer.model(x), y).item()
    assert trainer.validate(batches)["val_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("result", [0.5, torch.tensor(0.5), {"val_loss": torch.tensor([0.5])}, {"val_loss": 0.5}])
def test_a_validate_of_ones_own_may_return_a_number_or_numbers_by_name(result: Any) -> None:
    class Own(Validating):
        def validate(self, val_dataloader: Any) -> Any:
            return result

    trainer = loop(Own, max_step=1)
    trainer.train(samples(4))
    assert trainer.returned == [{"val_loss": 0.5}]
    assert darkit.load("hand").log()["val_loss"].to_list() == [0.5]


def test_a_validate_of_ones_own_runs_in_evaluation_mode_without_gradients_and_the_modes_come_back() -> None:
    class Own(Validating):
        seen: tuple[bool, bool]

        def validate(self, val_dataloader: Any) -> Any:
            self.seen = (self.model.training, torch.is_grad_enabled())
            self.model.train()

    trainer = loop(Own, max_step=2)
    trainer.model.layers[1].eval()
    trainer.train(samples(8))
    assert trainer.seen == (False, False)
    assert trainer.model.layers[0].training
    assert not trainer.model.layers[1].training


def test_nothing_to_evaluate_on_evaluates_nothing() -> None:
    class Without(Loop):
        def on_step(self, step: int, loss: Tensor) -> None:
            assert self._auto_validate(None) is None

    loop(Without, max_step=1).train(samples(4))
    assert darkit.load("hand").status == "finished"
    assert len(darkit.load("hand").log()) == 0


def test_an_evaluation_whose_columns_the_log_does_not_have_adds_no_row() -> None:
    from dataclasses import dataclass

    @dataclass
    class OnlyTrain:
        step: int = 0
        train_loss: float = 0.0

    trainer = loop(Validating, max_step=2, eval_step_interval=1, loss=F.mse_loss, log_fieldnames=OnlyTrain)
    trainer.train(samples(8))
    assert all(trainer.returned)
    assert (base() / "hand" / "train_log.csv").read_text() == "step,train_loss\n"


# The end


class Watching(Logging):
    """Looks at its own status and crashes when told to."""

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
    assert saved() == [2]


def test_an_interruption_is_a_stop() -> None:
    trainer = loop(Watching)
    trainer.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        trainer.train(samples(24))
    assert darkit.load("hand").status == "stopped"
    assert len(darkit.load("hand").log()) == 3


def test_a_loop_in_the_with_block_itself_is_kept_like_one_in_train() -> None:
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


def test_training_again_goes_on_with_the_same_run() -> None:
    trainer = loop(Logging, max_step=12)
    trainer.train(samples(12))
    with trainer:
        trainer.train(samples(24))
    run = darkit.load("hand")
    assert run.status == "finished"
    assert run.log()["step"].to_list() == [*range(3), *range(6)]
    assert saved() == [3, 6]


def test_a_train_that_comes_from_a_mixin_is_kept_too() -> None:
    class Recipe:
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
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


def test_resume_is_refused_where_the_loop_is_hand_written() -> None:
    loop().train(samples(24))
    with pytest.raises(ConfigError, match="must load its checkpoint itself"):
        loop(resume=True).train(samples(24))


def test_the_generators_are_seeded_as_the_config_says() -> None:
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
        ("if step == 2: raise KeyboardInterrupt", "stopped", "It was interrupted from the keyboard."),
    ],
)
def test_a_script_that_never_says_that_it_ended_is_ended_by_its_exit(ending: str, state: str, reason: str) -> None:
    program = textwrap.dedent(SCRIPT).format(ending=ending)
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False, cwd=CHECKOUT)
    run = darkit.load("script")
    assert (run.status, run.details.reason) == (state, reason)
    assert run.log()["step"].to_list() == [0, 1, 2]
    if state == "finished":
        assert saved("script") == [3]


def test_a_full_disk_is_a_crash_that_leaves_the_old_files_whole() -> None:
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
    command = [sys.executable, "-c", textwrap.dedent(program)]
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
