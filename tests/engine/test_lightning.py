"""The parts of Lightning that darkit uses without a promise: a failure names the one that a new version changed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from darkit.engine import lightning as used
from darkit.engine import lightning_loaders as loaders
from darkit.engine import lightning_results as kept

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*dataloader_iter")
PROGRESS = ("ready", "started", "processed", "completed")
PATHS = [
    *(f"fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.{name}" for name in ("ready", "completed")),
    *(
        f"fit_loop.epoch_loop.manual_optimization.optim_step_progress.increment_{name}"
        for name in ("ready", "completed")
    ),
    *(f"fit_loop.epoch_loop.batch_progress.{part}.{name}" for part in ("current", "total") for name in PROGRESS),
    *(f"fit_loop.epoch_progress.{part}.{name}" for part in ("current", "total") for name in PROGRESS),
    "fit_loop.restarting",
    "fit_loop._restarting",
    "fit_loop._data_fetcher",
    "fit_loop._combined_loader",
    "fit_loop._combined_loader_states_to_load",
    "fit_loop.max_batches",
    "fit_loop.on_advance_start",
    "fit_loop.on_advance_end",
    "fit_loop.epoch_loop.on_run_start",
    "fit_loop.epoch_loop.on_advance_end",
    "fit_loop.epoch_loop.update_lr_schedulers",
    "fit_loop.epoch_loop.val_loop.run",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop._num_ready_batches_reached",
    "fit_loop.epoch_loop._results",
    *(
        f"_logger_connector.{name}"
        for name in (
            *("_first_loop_iter", "_current_fx", "_callback_metrics", "_logged_metrics", "_progress_bar_metrics"),
            *("on_batch_end", "update_train_step_metrics"),
        )
    ),
    *(
        f"_checkpoint_connector.{name}"
        for name in (
            *("resume_start", "dump_checkpoint", "_loaded_checkpoint", "_ckpt_path"),
            "restore_optimizers_and_schedulers",
        )
    ),
    "strategy.launcher",
    "strategy.process_dataloader",
    "strategy.on_exception",
    "strategy.on_train_end",
    "strategy.training_step",
    "strategy.backward",
    "precision_plugin._after_closure",
    "fit_loop.epoch_loop._build_kwargs",
    "fit_loop.epoch_loop.automatic_optimization.run",
    "fit_loop.epoch_loop.manual_optimization.run",
    "received_sigterm",
    "fit_loop.epoch_loop._broadcast_sigterm_tensor",
    "enable_validation",
]


def make_trainer(**settings: Any) -> lightning.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(
        accelerator="cpu", use_distributed_sampler=False, **{"max_epochs": -1, **quiet, **settings}
    )


class Counting(lightning.LightningModule):
    """Steps as the adapter does, and notes where Lightning says that it is."""

    def __init__(self, per_call: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.per_call = per_call
        self.seen: list[tuple[int, Any, int]] = []
        self.ended: list[bool] = []
        self.taken: list[int] = []

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=0.1)

    def training_step(self, dataloader_iter: used.Batches) -> None:
        progress = used.step_progress(self.trainer)
        for _ in range(self.per_call):
            batch, index, loader = next(dataloader_iter)
            assert (type(index), type(loader)) == (int, int)
            self.seen.append((self.trainer.current_epoch, batch, index))
            progress.increment_ready()
            progress.increment_completed()
            if dataloader_iter.done:
                break

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.taken.append(used.batches_taken(self.trainer))

    def on_train_epoch_end(self) -> None:
        self.ended.append(used.data_ended(self.trainer))


class Rest:
    """Four batches an epoch, of which the first epoch has only the last ones left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        left, self.left = self.left, 4
        yield from range(4 - left, 4)


@pytest.mark.parametrize("path", PATHS)
def test_a_trainer_has_every_part_by_its_name(path: str) -> None:
    part: Any = make_trainer()
    for name in path.split("."):
        assert hasattr(part, name), f"Lightning {lightning.__version__} has no trainer.{path}: see engine/lightning.py"
        part = getattr(part, name)


def test_step_progress_is_what_global_step_and_max_steps_count() -> None:
    trainer, module = make_trainer(max_steps=6), Counting()
    trainer.fit(module, Rest(4))
    assert trainer.global_step == 6
    assert [batch for _, batch, _ in module.seen] == [0, 1, 2, 3, 0, 1]


def test_the_iterator_of_batches_gives_several_in_a_call_and_says_which_is_the_last() -> None:
    trainer, module = make_trainer(max_epochs=1), Counting(per_call=3)
    trainer.fit(module, Rest(4))
    assert module.seen == [(0, batch, batch) for batch in range(4)]


def test_data_that_has_ended_and_batches_taken_are_known_in_hooks() -> None:
    module = Counting()
    make_trainer(max_epochs=1).fit(module, iter([1, 2]))
    assert module.ended == [True]
    assert module.taken[:2] == [1, 2]
    module = Counting()
    make_trainer(max_steps=2).fit(module, iter([1, 2, 3, 4]))
    assert module.ended == [False]


def test_a_trainer_starts_in_the_middle_of_an_epoch() -> None:
    trainer, module = make_trainer(max_steps=9), Counting()
    used.start_from(trainer, 6, 1, 2)
    trainer.fit(module, Rest(2))
    assert [(epoch, batch) for epoch, batch, _ in module.seen] == [(1, 2), (1, 3), (2, 0)]
    assert trainer.global_step == 9


def test_an_epoch_of_which_nothing_is_left_is_ended_and_not_begun_again() -> None:
    trainer, module = make_trainer(max_steps=5), Counting()
    used.start_from(trainer, 4, 0, 4)
    trainer.fit(module, Rest(0))
    assert [(epoch, batch) for epoch, batch, _ in module.seen] == [(1, 0)]
    assert len(module.ended) == 2


class Raising(Counting):
    """Ends its first step by an interruption or a signal."""

    signal = False

    def training_step(self, dataloader_iter: used.Batches) -> None:
        super().training_step(dataloader_iter)
        if not self.signal:
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("by_signal", [False, True])
def test_an_exit_of_fit_tells_what_it_came_from(by_signal: bool) -> None:
    module = Raising()
    module.signal = by_signal
    with pytest.raises(SystemExit) as raised:
        make_trainer(max_steps=2).fit(module, Rest(4))
    assert (used.cause_of_exit(raised.value) is None) == by_signal
    assert used.is_sigterm(raised.value) == by_signal


def test_strategies_that_copy_the_process_are_told_from_others() -> None:
    assert used.copies_process(make_trainer(strategy="ddp_spawn", devices=2))
    assert not used.copies_process(make_trainer(strategy="ddp", devices=1))


def test_settings_that_lightning_refuses_raise_a_known_kind() -> None:
    for settings in ({"devices": 0}, {"strategy": "unknown"}, {"fast_dev_run": -1}):
        with pytest.raises(used.REFUSALS):
            make_trainer(**settings)


def test_the_rank_of_lightnings_helpers_can_be_set() -> None:
    before = used.lightnings_rank()
    try:
        for rank, expected in ((0, [1]), (3, [])):
            calls: list[int] = []
            used.set_lightnings_rank(rank)
            rank_zero_only(calls.append)(1)
            assert calls == expected, f"Lightning {lightning.__version__} no longer reads rank_zero_only.rank"
    finally:
        used.set_lightnings_rank(before)


def test_the_attributes_that_lightning_sets_on_a_module_are_known() -> None:
    module = Counting()
    own = set(vars(module)) - used.own_attributes(module)
    assert {"per_call", "seen"} <= own
    make_trainer(max_epochs=1, max_steps=1).strategy.connect(module)
    module.trainer = make_trainer()
    assert len(module.hparams) == 0
    assert set(vars(module)) - used.own_attributes(module) == own
    assert not used.own_attributes(torch.nn.Linear(1, 1))


class Logging(lightning.LightningModule):
    """Logs a mean, a largest value and a value of the step, in every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.log("mean", float(batch), on_step=False, on_epoch=True, batch_size=2)
        self.log("largest", float(batch), on_step=False, on_epoch=True, reduce_fx=max, batch_size=1)
        self.log("now", float(batch), batch_size=1)
        return (self.weight - 1.0) ** 2


class At(lightning.Callback):
    """Calls a function after the batch of a number, in the first epoch."""

    def __init__(self, batch: int, act: Any) -> None:
        self.batch, self.act = batch, act

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        def settled() -> None:
            if trainer.global_step == self.batch:
                self.act(trainer)

        self.undo = used.call_at(trainer.fit_loop.epoch_loop, "on_advance_end", settled)


def test_a_function_is_called_when_all_of_a_batch_is_done_and_can_be_taken_away() -> None:
    seen: list[Any] = []
    trainer = make_trainer(
        max_epochs=1, callbacks=[at := At(2, lambda trainer: seen.append(used.progress_of(trainer)))]
    )
    trainer.fit(Logging(), Rest(4))
    assert seen == [
        {
            "epoch": 0,
            "epochs": 0,
            "batch": 2,
            "batches": 2,
            "stepped": 2,
            "first": False,
            "hook": "training_step",
            "owes": False,
        }
    ]
    at.undo()
    assert "on_advance_end" not in vars(trainer.fit_loop.epoch_loop)


def test_results_of_an_epoch_are_restored_with_their_weights_and_kinds() -> None:
    saved: list[Any] = []
    trainer = make_trainer(
        max_epochs=1, callbacks=[At(3, lambda t: saved.extend(kept.describe_results(kept.epoch_results(t))))]
    )
    trainer.fit(Logging(), Rest(4))
    other = make_trainer(max_epochs=1)
    other.strategy.connect(Logging())
    other.training = True
    kept.restore_results(other, saved)
    restored = {
        key: result.compute().item() for key, result in other.fit_loop.epoch_loop._results.items() if "now" not in key
    }
    assert restored == {"training_step.mean": 1.0, "training_step.largest": 2.0}
    assert [result.meta for result in other.fit_loop.epoch_loop._results.values()][1].reduce_fx is max


def test_a_checkpoint_within_an_epoch_is_resumed_after_its_batch() -> None:
    made: list[Any] = []

    def save(trainer: lightning.Trainer) -> None:
        made.append((used.dump(trainer, used.progress_of(trainer)), used.progress_of(trainer)))

    make_trainer(max_epochs=2, callbacks=[At(2, save)]).fit(Logging(), Rest(4))
    content, progress = made[0]
    seen: list[int] = []

    class Resume(lightning.Callback):
        def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
            self.undo = used.restore_from(trainer, content, "memory")

        def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            used.start_exactly(trainer, progress)

        def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: int, batch_idx: int) -> None:
            seen.append(batch)

    trainer = make_trainer(max_epochs=2, callbacks=[Resume()])
    trainer.fit(Logging(), Rest(2))
    assert (trainer.global_step, seen) == (8, [2, 3, 0, 1, 2, 3])


def test_training_loaders_are_replaced_and_validation_loaders_are_not() -> None:
    asked: list[Any] = []
    trainer = make_trainer(max_epochs=1)
    undo = loaders.replace_training_loaders(trainer, lambda loader: asked.append(loader) or [7])
    module = Logging()
    module.validation_step = lambda batch, batch_idx: None  # type: ignore[method-assign]
    trainer.fit(module, [1, 2], [3])
    assert asked == [[1, 2]]
    assert trainer.global_step == 1
    undo()
    assert "process_dataloader" not in vars(trainer.strategy)
