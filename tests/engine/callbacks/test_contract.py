"""What every callback promises: it works alone in a stock trainer with someone else's module and changes nothing there.

A new callback is added to `CALLBACKS` and has to pass all of this.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy
import pytest
import torch

from darkit.engine import callbacks as room
from darkit.engine.callbacks import (
    EarlyStop,
    EmaWeights,
    ExportConfigs,
    LossGuard,
    LossSpikeGuard,
    RequireMetric,
    SaveBest,
    SpikingReceipt,
    StepCheckpoint,
    StepEvaluate,
    StepLog,
    StopOnRequest,
)
from darkit.engine.callbacks.base import ComparingCallback, EveryStepCallback, StepCallback
from darkit.engine.callbacks.monitor import BestCallback
from darkit.engine.callbacks.record import RecordBatches
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import Stream, equal_weights, in_order, made, train, xy

BASES = (StepCallback, EveryStepCallback, ComparingCallback, BestCallback)
CALLBACKS: dict[str, Callable[[Path], lightning.Callback]] = {
    "EarlyStop": lambda folder: EarlyStop(100, "train_loss"),
    "EmaWeights": lambda folder: EmaWeights(0.9),
    "ExportConfigs": lambda folder: ExportConfigs(folder, {"lr": 0.1}),
    "LossGuard": lambda folder: LossGuard("stop"),
    "LossSpikeGuard": lambda folder: LossSpikeGuard(1.0, 4),
    "SaveBest": lambda folder: SaveBest(StepCheckpoint(folder), "train_loss"),
    "RequireMetric": lambda folder: RequireMetric("train_loss"),
    "SpikingReceipt": lambda folder: SpikingReceipt(),
    "StepCheckpoint": lambda folder: StepCheckpoint(folder, 2),
    "StepEvaluate": lambda folder: StepEvaluate(in_order(8), 2),
    "StepLog": lambda folder: StepLog(folder),
    "StopOnRequest": lambda folder: StopOnRequest(),
    "RecordBatches": lambda folder: RecordBatches(folder / "batches.csv"),
}


@pytest.fixture(params=CALLBACKS)
def callback(request: pytest.FixtureRequest, folder: Path) -> lightning.Callback:
    """Each callback in turn, alone."""
    return CALLBACKS[request.param](folder)


def test_every_callback_of_the_room_is_under_this_contract_and_has_a_file_and_a_test() -> None:
    files: dict[str, str] = {}
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        for name, value in vars(module).items():
            callback = isinstance(value, type) and issubclass(value, lightning.Callback)
            if callback and value.__module__ == module.__name__ and value not in BASES:
                files[name] = info.name
    assert set(files) == set(CALLBACKS) >= set(room.__all__)
    assert len(set(files.values())) == len(files)
    assert all((Path(__file__).parent / f"test_{file}.py").is_file() for file in files.values())


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 6},
        {"max_epochs": 2},
        {"max_steps": 4, "accumulate_grad_batches": 2},
        {"max_epochs": 1, "accumulate_grad_batches": 3},
        {"max_epochs": 1, "gradient_clip_val": 0.1},
        {"fast_dev_run": 2},
        {"max_epochs": 1, "precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_alone_in_a_stock_trainer_it_changes_no_weight_and_no_random_number(
    callback: lightning.Callback, options: dict[str, Any]
) -> None:
    with_it, without = Foreign(), Foreign()
    reference = stock_fit(without, **options)
    expected = [random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    trainer = stock_fit(with_it, callback, **options)
    assert equal_weights(with_it, without)
    assert with_it.losses == without.losses
    assert trainer.global_step == reference.global_step > 0
    assert [random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()] == expected
    assert with_it.training


def test_data_of_unknown_length_is_no_difference(callback: lightning.Callback) -> None:
    with_it, without = Foreign(), Foreign()
    stock_fit(without, data=torch.utils.data.DataLoader(Stream(10), batch_size=4))
    stock_fit(with_it, callback, data=torch.utils.data.DataLoader(Stream(10), batch_size=4))
    assert equal_weights(with_it, without)


def test_a_step_that_the_module_skips_is_survived(callback: lightning.Callback) -> None:
    module = Foreign(skip_at=1)
    stock_fit(module, callback, max_epochs=1)
    assert len(module.losses) == 4


def test_an_exception_of_the_module_comes_through_as_it_is(callback: lightning.Callback) -> None:
    with pytest.raises(ZeroDivisionError, match="theirs"):
        stock_fit(Foreign(fail_at=2), callback)


@pytest.mark.parametrize("fail_at", [-1, 2])
def test_afterwards_no_thread_and_no_signal_handler_is_left(callback: lightning.Callback, fail_at: int) -> None:
    before = set(threading.enumerate())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    try:
        stock_fit(Foreign(fail_at=fail_at), callback)
    except ZeroDivisionError:
        assert fail_at == 2
    assert {thread for thread in threading.enumerate() if thread.name.startswith("darkit")} <= before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers


def test_the_same_one_serves_a_second_training(callback: lightning.Callback) -> None:
    first, second, without = Foreign(), Foreign(), Foreign()
    stock_fit(first, callback)
    stock_fit(second, callback)
    stock_fit(without)
    assert equal_weights(second, without)


def test_it_works_outside_the_main_thread(callback: lightning.Callback) -> None:
    module, without = Foreign(), Foreign()
    stock_fit(without)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            stock_fit(module, callback)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert equal_weights(module, without)


def test_the_order_among_others_does_not_matter_to_the_weights(folder: Path) -> None:
    ours, without = Foreign(), Foreign()
    stock_fit(ours, *(make(folder) for make in reversed(CALLBACKS.values())))
    stock_fit(without)
    assert equal_weights(ours, without)


def test_as_a_user_callback_in_fit_it_changes_no_weight_either(callback: lightning.Callback) -> None:
    ours, without = made(), made()
    if isinstance(callback, EmaWeights):
        return  # refused, for it must come before the evaluation: ema_decay puts it there
    if isinstance(callback, StepEvaluate):
        callback.compute = lambda batch: {"loss": (ours(batch[0]) - batch[1]).square().mean()}
    train(ours, xy(), callbacks=[callback])
    train(without, xy())
    assert equal_weights(ours, without)


def test_an_error_of_a_module_with_outputs_is_raised_too(tmp_path: Path) -> None:
    class Fails(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                raise ZeroDivisionError("theirs")

    module = Foreign()
    module.outputs = [1.0]
    with pytest.raises(ZeroDivisionError, match="theirs"):
        stock_fit(module, Fails(), StepLog(tmp_path), LossGuard())


@pytest.mark.parametrize("options", [{"max_steps": 5}, {"max_steps": 5, "accumulate_grad_batches": 3}], ids=str)
def test_a_step_is_met_once_after_the_optimizer_and_never_for_a_batch_that_was_only_accumulated(
    options: dict[str, Any],
) -> None:
    class Counting(StepCallback):
        def __init__(self) -> None:
            self.met: list[tuple[int, int]] = []

        def on_step(self, trainer: lightning.Trainer, pl_module: Any, outputs: dict[str, Any], step: int) -> None:
            (optimizer,) = trainer.optimizers
            self.met.append((step, int(next(iter(optimizer.state.values()))["step"])))

    counting = Counting()
    stock_fit(Foreign(), counting, **options)
    assert counting.met == [(step, step) for step in range(1, 6)]
    inside = Counting()
    train(
        made(),
        xy(),
        callbacks=[inside],
        max_step=5,
        gradient_accumulation_steps=options.get("accumulate_grad_batches", 1),
    )
    assert inside.met == counting.met


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: StepCheckpoint(folder, -1), "every must be a whole number of at least 0, not -1"),
        (lambda folder: StepCheckpoint(folder, 1.5), "every must be a whole number of at least 0, not 1.5"),
        (lambda folder: StepEvaluate([], -1), "every must be a whole number of at least 0, not -1"),
        (lambda folder: StepEvaluate([], 1, -1), "iters must be a whole number of at least 0, not -1"),
        (lambda folder: StepEvaluate([], True), "every must be a whole number of at least 0, not True"),
        (lambda folder: StepLog(folder, 0), "every must be a whole number of at least 1, not 0"),
        (lambda folder: StepLog(folder, "1"), "every must be a whole number of at least 1, not '1'"),
        (lambda folder: LossGuard("never"), "policy must be 'stop' or 'warn', not 'never'"),
    ],
)
def test_a_wrong_argument_is_refused_in_the_constructor_and_nothing_is_made(
    make: Callable[[Path], Any], said: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        make(folder)
    assert not os.path.lexists(folder)
