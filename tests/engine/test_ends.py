"""However a training ends, its last completed finite step is saved, and can be resumed exactly."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
import torchmetrics
from lightning.pytorch import callbacks as stock
from torch import nn
from torch.utils.data import DataLoader, Dataset

import darkit
from darkit.errors import BatchError, NonFiniteLossError, OutOfMemoryError, RunExistsError
from tests.engine.parts import made, run_names, train, xy
from tests.engine.resuming import (
    Augmented,
    Continuing,
    Dropping,
    OwnSampler,
    Shuffled,
    assert_same,
    run_one,
    shuffling,
)

DATA: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tensors": (xy, {}),
    "augmented": (Augmented, {}),
    "workers": (Augmented, {"num_workers": 1}),
    "stream from its start": (Shuffled, {}),
    "stream that knows its place": (Continuing, {}),
    "sized stream": (lambda: Continuing(sized=True), {}),
    "own loader": (lambda: shuffling(generator=torch.Generator().manual_seed(3)), {}),
    "own sampler": (lambda: DataLoader(Augmented(), batch_size=6, sampler=OwnSampler()), {}),
    "accumulation": (Augmented, {"gradient_accumulation_steps": 3}),
}


class Fails(Exception):
    """Somebody's bug."""


class Breaks(lightning.Callback):
    """Fails once at a place of the batch after so many steps, with random numbers drawn before."""

    def __init__(self, place: str, after: int, error: BaseException | None = None) -> None:
        self.place, self.after = place, after
        self.error = error or Fails("theirs")

    def fail(self, trainer: lightning.Trainer, place: str) -> None:
        if place == self.place and trainer.global_step == self.after:
            if place != "end":  # what callbacks draw after a step is part of the training
                torch.randn(3)
            raise self.error

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        def hook(*arguments: Any) -> None:
            self.fail(trainer, "forward")

        self.handle = pl_module.module.layers[3].register_forward_hook(hook)

    def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:
        self.fail(trainer, "start")

    def on_before_backward(self, trainer: lightning.Trainer, *rest: Any) -> None:
        self.fail(trainer, "backward")

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
        if outputs:
            self.fail(trainer, "end")

    def on_train_epoch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
        self.fail(trainer, "epoch")


def broken_and_resumed(data: Callable[[], Any], place: str, after: int, **options: Any) -> darkit.Run:
    with pytest.raises(Fails):
        run_one(data, "broken", save_step_interval=0, callbacks=lambda: [Breaks(place, after)], **options)
    run = darkit.load("broken")
    assert (run.status, run.details.step) == ("crashed", after)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [after]
    assert run.checkpoints()[-1].metrics["train_loss"] == run.log()["train_loss"][-1]
    assert run.log()["step"].to_list() == list(range(1, after + 1))
    return run_one(data, "broken", save_step_interval=0, resume=True, **options)


@pytest.mark.few(3)
@pytest.mark.filterwarnings("ignore:The data differs")
@pytest.mark.parametrize("kind", DATA)
def test_a_training_that_an_error_interrupted_resumes_exactly(kind: str) -> None:
    data, options = DATA[kind]
    straight = run_one(data, "straight", save_step_interval=0, **options)
    for place, after in (("forward", 4), ("forward", 3)):
        assert_same(straight, broken_and_resumed(data, place, after, **options))
        darkit.load("broken").path.rename(straight.path.parent / f"{place}-{after}")


@pytest.mark.parametrize("place", ["start", "backward", "end", "epoch"])
def test_the_place_of_the_error_makes_no_difference(place: str) -> None:
    straight = run_one(Augmented, "straight", save_step_interval=0)
    assert_same(straight, broken_and_resumed(Augmented, place, 4))


class Momentum(Dropping):
    """Has a second encoder that its forward pass moves towards the first one, as MoCo does."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.slow = nn.Linear(4, 6).requires_grad_(False)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        slow, fast = self.slow.weight, self.layers[0].weight
        with torch.no_grad():
            if self.way == "in place":
                slow.lerp_(fast, 0.1)
            elif self.way == "data in place":
                slow.data.lerp_(fast.data, 0.1)
            else:
                slow.data = slow.data.lerp(fast.data, 0.1)
        distance = (self.slow(batch[0]) - self.layers[0](batch[0])).square().mean()
        return super().training_step(batch) + distance


@pytest.mark.parametrize("loop", ["own", "lightnings"])
@pytest.mark.parametrize("way", ["in place", "data in place", "data"])
def test_a_step_whose_weights_the_failed_batch_has_changed_is_not_saved(way: str, loop: str) -> None:
    further = [stock.LearningRateMonitor()] if loop == "lightnings" else []
    options: dict[str, Any] = {"model": lambda: Momentum(way), "save_step_interval": 2}
    straight = run_one(xy, "straight", callbacks=lambda: further, **options)
    for place, saved in (("end", [2, 4, 5]), ("backward", [2, 4])):
        with pytest.raises(Fails) as caught:
            run_one(xy, place, callbacks=lambda place=place: [*further, Breaks(place, 5)], **options)
        assert [checkpoint.step for checkpoint in darkit.load(place).checkpoints()] == saved
        noted = any("the weight 'slow.weight' has changed" in note for note in getattr(caught.value, "__notes__", []))
        assert noted == (place == "backward")
        resumed = run_one(xy, place, callbacks=lambda: further, resume=True, **options)
        assert [row["train_loss"] for row in resumed.log().to_dicts()] == straight.log()["train_loss"].to_list()


class Measured(Dropping):
    """Returns what a torchmetrics object inside it has found since the start."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.all = torchmetrics.MeanMetric(), torchmetrics.CatMetric()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        loss = super().training_step(batch)
        self.mean.update(loss.detach())
        self.all.update(loss.detach())
        return {"loss": loss, "mean": self.mean.compute(), "all": self.all.compute().sum()}


@pytest.mark.filterwarnings("ignore:No config of")
def test_torchmetrics_objects_that_the_failed_batch_updated_count_it_once() -> None:
    options: dict[str, Any] = {"model": Measured, "save_step_interval": 0}
    straight = run_one(xy, "straight", **options)
    assert_same(straight, broken_and_resumed(xy, "backward", 5, model=Measured))


def test_what_callbacks_change_at_the_end_of_an_epoch_is_saved_by_an_error_in_the_next_one() -> None:
    class Disturbs(lightning.Callback):
        def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            with torch.no_grad():
                pl_module.module.layers[0].weight += 0.01 * torch.randn(6, 4)

    options: dict[str, Any] = {"save_step_interval": 0}
    straight = run_one(xy, "straight", callbacks=lambda: [Disturbs()], **options)
    with pytest.raises(Fails):
        run_one(xy, "broken", callbacks=lambda: [Disturbs(), Breaks("forward", 4)], **options)
    assert_same(straight, run_one(xy, "broken", callbacks=lambda: [Disturbs()], resume=True, **options))


def test_an_error_after_a_save_in_the_same_epoch_reads_on_from_there() -> None:
    straight = run_one(Continuing, "straight", save_step_interval=2)
    with pytest.raises(Fails):
        run_one(Continuing, "broken", save_step_interval=2, callbacks=lambda: [Breaks("forward", 3)])
    assert [checkpoint.step for checkpoint in darkit.load("broken").checkpoints()] == [2, 3]
    with pytest.raises(Fails):
        run_one(Continuing, "broken", resume=True, save_step_interval=9, callbacks=lambda: [Breaks("forward", 7)])
    assert_same(straight, run_one(Continuing, "broken", resume=True, save_step_interval=2))


def test_inside_the_optimizer_nothing_is_saved_and_what_was_saved_stays() -> None:
    class Torn(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            if self.state_dict()["param_groups"][0]["lr"] and (calls := next(count)) == 4:
                raise Fails(calls)

    for interval, expected in ((0, []), (2, [2, 4])):
        count = itertools.count()
        with pytest.raises(Fails):
            train(
                made(), xy(), name=f"torn{interval}", save_step_interval=interval, optimizer=lambda p: Torn(p, lr=0.1)
            )
        assert [saved.step for saved in darkit.load(f"torn{interval}").checkpoints()] == expected


def test_a_schedule_that_fails_leaves_no_step_of_which_a_half_was_made() -> None:
    def rate(step: int) -> float:
        if step == 4:
            raise Fails
        return 1.0

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    with pytest.raises(Fails):
        train(made(), xy(), name="half", save_step_interval=3, scheduler=schedule)
    assert [saved.step for saved in darkit.load("half").checkpoints()] == [3]


def test_weights_that_are_not_finite_are_not_saved_by_an_error_either() -> None:
    class Spoils(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *rest: Any) -> None:
            if trainer.global_step == 5:
                with torch.no_grad():
                    next(pl_module.module.parameters()).fill_(float("inf"))
                raise Fails

    with pytest.raises(Fails) as caught:
        train(made(), xy(), name="spoilt", save_step_interval=2, callbacks=[Spoils()])
    assert [saved.step for saved in darkit.load("spoilt").checkpoints()] == [2, 4]
    assert any("not finite after step 5" in note for note in caught.value.__notes__)


def test_a_loss_that_is_not_finite_is_no_step_to_save_though_the_weights_are() -> None:
    def loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value = torch.nn.functional.mse_loss(outputs, target)
        return value if next(calls) != 4 else value * 0 + float("inf") + outputs.sum() * 0

    calls = itertools.count()
    with pytest.raises(NonFiniteLossError):
        train(made(), xy(), name="inf", loss=loss, save_step_interval=2)
    assert [saved.step for saved in darkit.load("inf").checkpoints()] == [2, 4]


class InTheWay(lightning.Callback):
    """Puts a folder in the way of the next checkpoint, and fails."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
        if trainer.global_step == 3:
            folder = darkit.load("full").path / "iter-3-ckpt.pth"
            folder.mkdir()
            (folder / "file").touch()
            raise Fails("mine")


def test_an_error_while_saving_is_a_note_on_the_error_and_does_not_replace_it() -> None:
    with pytest.raises(Fails, match="mine") as caught:
        train(made(), xy(), name="full", callbacks=[InTheWay()])
    assert any(note.startswith("The last step could not be saved: StorageError") for note in caught.value.__notes__)
    assert darkit.load("full").details.reason == "Fails: mine"


def test_another_callback_that_fails_on_the_error_does_not_keep_the_step_from_being_saved() -> None:
    class Worse(Breaks):
        def on_exception(self, *arguments: Any) -> None:
            raise KeyError("worse")

    with pytest.raises(KeyError):
        run_one(xy, "worse", save_step_interval=0, callbacks=lambda: [Worse("forward", 4)])
    assert [saved.step for saved in darkit.load("worse").checkpoints()] == [4]


def test_an_exit_of_the_program_in_a_callback_saves_too() -> None:
    with pytest.raises(SystemExit):
        run_one(xy, "exit", save_step_interval=0, callbacks=lambda: [Breaks("start", 3, SystemExit(5))])
    assert [saved.step for saved in darkit.load("exit").checkpoints()] == [3]


def test_sigterm_before_the_first_step_ends_with_its_exit_code() -> None:
    class Warned(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as left:
        train(made(), xy(), name="early", callbacks=[Warned()], max_step=20)
    assert left.value.code == 143
    run = darkit.load("early")
    assert (run.details.state, run.details.step) == ("stopped", 1)
    assert [saved.step for saved in run.checkpoints()] == [1]


class TooMuch(nn.Module):
    """Asks for more memory than there is, once it has trained for some steps."""

    def __init__(self, after: int = 0, where: str = "forward") -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.after, self.where, self.calls = after, where, 0

    def loss(self, batch: Any) -> torch.Tensor:
        self.calls += 1
        loss = nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        if self.calls > self.after and self.where == "forward":
            torch.empty(1 << 55, dtype=torch.uint8)
        if self.calls > self.after and self.where == "backward":
            loss.register_hook(lambda gradient: gradient + torch.empty(1 << 55, dtype=torch.uint8).sum())
        if self.calls > self.after and self.where == "python":
            raise MemoryError
        if self.calls > self.after and self.where == "iterator":
            next(iter(()))
        return loss


@pytest.mark.parametrize("where", ["forward", "backward", "python"])
def test_running_out_of_host_memory_is_reported_as_such(where: str) -> None:
    with pytest.raises((OutOfMemoryError, RuntimeError)) as caught:
        train(TooMuch(2, where), xy(), name="memory")
    run = darkit.load("memory")
    assert run.details.reason.startswith("Out of memory: ")
    assert [saved.step for saved in run.checkpoints()] == [2]
    assert not isinstance(caught.value, BatchError)
    if where != "backward":
        assert str(caught.value).startswith("Out of memory on a batch of (float32[4, 4], float32[4, 1]): use smaller")


def test_a_stop_iteration_of_a_model_is_an_error_and_no_end_of_the_data() -> None:
    with pytest.raises(BatchError, match="StopIteration"):
        train(TooMuch(2, "iterator"), xy(), name="iterator")
    assert darkit.load("iterator").details.step == 2


class Ragged(Dataset[Any]):
    """Samples of different lengths, which the usual collating cannot stack."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(index + 1), torch.zeros(1)


class BadBackward(nn.Module):
    """A gradient of a wrong shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def loss(self, batch: Any) -> torch.Tensor:
        loss = nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        loss.register_hook(lambda gradient: torch.zeros(3))
        return loss


class Early(lightning.Callback):
    """A bug before the first step."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.fail)

    def fail(self, *arguments: Any) -> None:
        raise Fails("early")


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (made, Ragged, {}),
        (made, Ragged, {"num_workers": 1}),
        (BadBackward, xy, {}),
        (made, xy, {"callbacks": [Early("on_train_start")]}),
        (made, xy, {"callbacks": [Early("on_before_optimizer_step")]}),
        (made, xy, {"optimizer": lambda parameters: 1 / 0}),
        (made, lambda: [object()] * 8, {}),
        (made, lambda: [{"x": torch.zeros(4), "n": None}] * 8, {}),
    ],
)
def test_a_run_without_a_completed_step_leaves_nothing_whatever_the_error_was(
    model: Callable[[], Any], data: Callable[[], Any], options: dict[str, Any]
) -> None:
    for _ in range(2):  # the name is free
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each kind has its own
            train(model(), data(), name="early", **options)
        assert not isinstance(caught.value, RunExistsError)
    assert run_names() == []


def test_a_child_that_a_callback_forks_and_that_exits_changes_nothing_of_the_run() -> None:
    class Forks(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.global_step == 3 and not os.fork():
                sys.exit(5)

    parent = os.getpid()
    try:
        run = train(made(), Augmented(), name="forks", num_workers=1, callbacks=[Forks()], save_step_interval=2)
    except SystemExit:
        assert os.getpid() != parent
        os._exit(7)  # what the child does: nothing more
    finally:
        if os.getpid() != parent:
            os._exit(6)
    assert os.WEXITSTATUS(os.wait()[1]) == 7
    assert (run.status, run.details.step) == ("finished", 6)
    assert run.log()["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert [saved.step for saved in run.checkpoints()] == [2, 4, 6]
