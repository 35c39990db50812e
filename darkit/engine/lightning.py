"""The parts of Lightning that darkit uses although they are private, experimental or undocumented.

No other files but `darkit.engine.lightning_loaders`, `darkit.engine.lightning_results` and
`darkit.engine.lightning_hooks` touch these parts.
``tests/engine/test_lightning.py`` checks each by name, and ``pyproject.toml`` bounds Lightning to the versions that it
passes with.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

REFUSALS = (ValueError, TypeError, RuntimeError, MisconfigurationException)
"""What `lightning.Trainer` raises for settings that it cannot combine."""


class Batches(Protocol):
    """What ``training_step(dataloader_iter)`` gets: each item is a batch, its index and its loader's index.

    Several steps per call need the batches themselves, and whether one was the last: after it Lightning must end the
    epoch.
    """

    done: bool

    def __next__(self) -> tuple[Any, int, int]: ...


def own_attributes(module: nn.Module) -> frozenset[str]:
    """Return the names of the attributes in which Lightning keeps its own state on a module, such as its trainer."""
    if not isinstance(module, lightning.LightningModule):
        return frozenset()
    return frozenset(("_hparams", "_hparams_initial", "_hparams_name", *vars(lightning.LightningModule())))


def step_progress(trainer: lightning.Trainer) -> Any:
    """Return the counter of optimizer steps behind ``trainer.global_step``.

    Whoever steps the optimizer without `LightningOptimizer.step` counts with ``increment_ready`` and
    ``increment_completed``.
    """
    return trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress


def batches_taken(trainer: lightning.Trainer) -> int:
    """Return the number of batches of this epoch so far, for a checkpoint outside of hooks that get an index."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def data_ended(trainer: lightning.Trainer) -> bool:
    """Return whether the data of this epoch has ended, which is not known beforehand without a length."""
    return bool(trainer.fit_loop._data_fetcher.done)  # type: ignore[union-attr]


def start_from(trainer: lightning.Trainer, step: int, epoch: int, batches: int) -> None:
    """Set the counters of a new trainer: ``fit(ckpt_path=...)`` reads only checkpoints that Lightning wrote.

    Args:
        trainer: The trainer, before ``fit``.
        step: Completed optimizer steps.
        epoch: Completed epochs.
        batches: Batches taken of the next epoch. If any, Lightning resumes it, and ends it even when none is left.
    """
    loop = trainer.fit_loop
    steps = step_progress(trainer).total
    steps.ready = steps.completed = step
    epochs: Any = loop.epoch_progress
    for counter in (epochs.current, epochs.total):
        counter.ready = counter.started = epoch + bool(batches)
        counter.processed = counter.completed = epoch
    if batches:
        taken: Any = loop.epoch_loop.batch_progress
        for counter in (taken.current, taken.total):
            counter.ready = counter.started = counter.processed = counter.completed = batches
        loop.restarting = True


def cause_of_exit(error: SystemExit) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that an exit of ``fit`` came from: Lightning exits the process while handling it."""
    return error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else None


def is_sigterm(error: SystemExit) -> bool:
    """Return whether Lightning raised an exit because of a SIGTERM that its own handler received."""
    return isinstance(error, SIGTERMException)


def was_sent_sigterm(trainer: lightning.Trainer) -> bool:
    """Return whether Lightning's handler received a SIGTERM."""
    return bool(trainer.received_sigterm)


def leave_signals(trainer: lightning.Trainer) -> None:
    """Keep several processes from telling each other before every batch whether SIGTERM came, where others do that.

    Each such message waits for the accelerator.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def copies_process(trainer: lightning.Trainer) -> bool:
    """Return whether a strategy starts copies of this process (spawn, fork); their class has no public name."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def own_children(trainer: lightning.Trainer) -> list[subprocess.Popen[bytes]]:
    """Return the processes that a trainer has started for other devices, and look after them from now on.

    Otherwise a thread of Lightning's kills this process within 5 s after one of them has failed, before it can say so.
    The thread ends when its list of processes is empty.
    """
    launcher: Any = trainer.strategy.launcher
    if not hasattr(launcher, "procs"):
        return []
    children = list(launcher.procs)
    launcher.procs.clear()
    launcher.procs = children
    return children


def lightnings_rank() -> int:
    """Return the rank that Lightning's helpers for one process take this process for."""
    return int(getattr(rank_zero_only, "rank", 0))


def set_lightnings_rank(rank: int) -> None:
    """Set the rank that Lightning's helpers read from environment variables when they were imported."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def gives_single_batches(trainer: lightning.Trainer) -> bool:
    """Return whether ``training_step`` gets one batch of one loader, and neither several nor their iterator."""
    loop = trainer.fit_loop
    loaders = loop._combined_loader
    takes_iterator = is_param_in_hook_signature(
        trainer.lightning_module.training_step, "dataloader_iter", explicit=True
    )
    return loaders is not None and len(loaders.flattened) == 1 and not takes_iterator


def call_at(owner: Any, method: str, function: Callable[[], None], *, before: bool = False) -> Callable[[], None]:
    """Have a function called after (or before) every call of a loop's method that returns; return what undoes this.

    After ``trainer.fit_loop.epoch_loop.on_advance_end`` everything that belongs to a batch is done: its step,
    validation, schedules and logged values; after ``trainer.fit_loop.on_advance_end`` likewise for an epoch. No hook of
    a callback comes so late.
    """
    original = getattr(owner, method)

    def wrapped(*arguments: Any, **settings: Any) -> Any:
        if before:
            function()
        found = original(*arguments, **settings)
        if not before:
            function()
        return found

    setattr(owner, method, wrapped)
    return lambda: owner.__dict__.pop(method, None)


def on_error(trainer: lightning.Trainer, function: Callable[[BaseException], None]) -> None:
    """Have a function called with an error that ends ``fit``, after the callbacks and before anything is torn down."""
    original = trainer.strategy.on_exception

    def wrapped(error: BaseException) -> None:
        function(error)
        original(error)

    trainer.strategy.on_exception = wrapped  # type: ignore[assignment, method-assign]


def note_outputs(trainer: lightning.Trainer, note: Callable[[Any], None]) -> Callable[[], None]:
    """Have every return value of a training step noted, before any callback sees it; return what undoes this."""
    loop = trainer.fit_loop.epoch_loop
    owners: list[Any] = [loop.automatic_optimization, loop.manual_optimization]

    def wrap(owner: Any) -> None:
        original = owner.run

        def run(*arguments: Any, **settings: Any) -> Any:
            outputs = original(*arguments, **settings)
            note(outputs)
            return outputs

        owner.run = run

    def undo() -> None:
        for owner in owners:
            owner.__dict__.pop("run", None)

    for owner in owners:
        wrap(owner)
    return undo


def signature_once(trainer: lightning.Trainer) -> Callable[[], None]:
    """Have the signature of ``training_step`` looked at once instead of in every step; return what undoes this."""
    loop: Any = trainer.fit_loop.epoch_loop
    original = loop._build_kwargs
    names: list[str] = []

    def build(kwargs: Any, batch: Any, batch_idx: int) -> Any:
        if not names:
            found = original(kwargs, batch, batch_idx)
            names.extend(found)
            return found
        kwargs.update(zip(names, (batch, batch_idx), strict=False))
        return kwargs

    loop._build_kwargs = build
    return lambda: loop.__dict__.pop("_build_kwargs", None)


def restore_from(trainer: lightning.Trainer, content: Mapping[str, Any], path: str) -> Callable[[], None]:
    """Have ``fit`` restore a checkpoint that is in memory already; return what undoes this.

    Lightning calls ``resume_start`` before it restores anything, whether or not ``fit`` got a ``ckpt_path``.

    Args:
        trainer: The trainer, at the latest in ``setup``.
        content: The content of the checkpoint.
        path: Where it was read, for Lightning's messages.
    """
    connector: Any = trainer._checkpoint_connector

    def resume_start(*arguments: Any, **settings: Any) -> None:
        connector._ckpt_path, connector._loaded_checkpoint = path, dict(content)

    connector.resume_start = resume_start
    return lambda: connector.__dict__.pop("resume_start", None)


def restore_optimizers_by(trainer: lightning.Trainer, function: Callable[[], None]) -> Callable[[], None]:
    """Have a function restore optimizers and schedules in place of Lightning; return what undoes this."""
    connector: Any = trainer._checkpoint_connector
    connector.restore_optimizers_and_schedulers = function
    return lambda: connector.__dict__.pop("restore_optimizers_and_schedulers", None)


def progress_of(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return where the loops are, once everything of the last batch is done.

    Returns:
        ``epoch`` and ``epochs``: completed epochs of this fit and of all; ``batch`` and ``batches``: batches of this
        epoch and of all; ``stepped``: batches with a step, by which Lightning logs; ``first`` and ``hook``: what
        Lightning's logging knows about the batch and the hook before; ``owes``: whether a validation and schedules may
        still be due for the batch.
    """
    loop, epoch_loop, logged = trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer._logger_connector
    return {
        "epoch": loop.epoch_progress.current.completed,
        "epochs": loop.epoch_progress.total.completed,
        "batch": epoch_loop.batch_progress.current.ready,
        "batches": epoch_loop.batch_progress.total.ready,
        "stepped": epoch_loop._batches_that_stepped,
        "first": logged._first_loop_iter,
        "hook": logged._current_fx,
        "owes": False,
    }


def has_batch_in_flight(trainer: lightning.Trainer) -> bool:
    """Return whether a batch was begun whose optimizer steps are not all done."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return bool(progress.ready != progress.processed)


def is_at_batch_end(trainer: lightning.Trainer) -> bool:
    """Return whether a batch is done except for the hooks ``on_train_batch_end``."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return bool(progress.completed != progress.processed)


def finish_batch(trainer: lightning.Trainer) -> None:
    """Count what a batch logged whose optimizer steps are done, after an error in a later hook."""
    loop, logged = trainer.fit_loop.epoch_loop, trainer._logger_connector
    trainer.training = True
    if loop.batch_progress.total.completed < loop.batch_progress.total.processed:  # type: ignore[attr-defined]
        logged.on_batch_end()
        loop.batch_progress.increment_completed()
        logged.update_train_step_metrics()


def validate(trainer: lightning.Trainer) -> None:
    """Validate now, after a batch, as Lightning does when a validation is due; nothing without validation data."""
    loop = trainer.fit_loop.epoch_loop
    if not trainer.enable_validation:
        return
    first = trainer._logger_connector._first_loop_iter
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True
    trainer._logger_connector._first_loop_iter = first


def epoch_has_ended(trainer: lightning.Trainer) -> bool:
    """Return whether the batch just done was the last one of its epoch."""
    return bool(trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def logged_step(trainer: lightning.Trainer) -> int:
    """Return the step under which Lightning logs now, counted from 0 in batches."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def dump(trainer: lightning.Trainer, progress: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a checkpoint of Lightning's.

    Args:
        trainer: The trainer.
        progress: Where the loops were after the last batch (`progress_of`), to resume within that epoch; None after an
            epoch.
    """
    content: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(False)
    if progress is None:
        return content
    loops = content["loops"]["fit_loop"]
    for part, done in (("current", progress["epoch"]), ("total", progress["epochs"])):
        counts = loops["epoch_progress"][part]
        counts.update(ready=done + 1, started=done + 1, processed=done, completed=done)
    batches = loops["epoch_loop.batch_progress"]
    for part, done in (("current", progress["batch"]), ("total", progress["batches"])):
        batches[part].update(dict.fromkeys(("ready", "started", "processed", "completed"), done))
    batches["is_last_batch"] = False
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = progress["stepped"]
    content["epoch"] = progress["epoch"]
    return content


def start_exactly(trainer: lightning.Trainer, progress: Mapping[str, Any] | None) -> Callable[[], None]:
    """Have a restored trainer begin after the saved batch, or epoch, with nothing repeated or left out.

    Lightning repeats a schedule's step, and leaves out others, in the first epoch after a restart.

    Args:
        trainer: The trainer, restored, before its first epoch.
        progress: As for `dump`.

    Returns:
        What undoes it.
    """
    loop: Any = trainer.fit_loop
    if progress is None:
        _forget_restart(loop)
        return lambda: None
    logged: Any = trainer._logger_connector

    def begin() -> None:
        if loop.restarting:
            _forget_restart(loop)
            logged._first_loop_iter, logged._current_fx = progress["first"], progress["hook"]
            if progress["owes"]:
                loop.epoch_loop.on_advance_end(loop._data_fetcher)

    return call_at(loop.epoch_loop, "on_run_start", begin)


def resume_averaging(trainer: lightning.Trainer) -> None:
    """Resume `StochasticWeightAveraging` within an epoch: it restores its schedule only at the start of one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging):
            rates = [[dict(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
            callback.on_train_epoch_start(trainer, trainer.lightning_module)
            for optimizer, groups in zip(trainer.optimizers, rates, strict=True):  # a new schedule sets them
                for group, values in zip(optimizer.param_groups, groups, strict=True):
                    group.update({key: value for key, value in values.items() if key != "params"})


def _forget_restart(loop: Any) -> None:
    loop._restarting = False
    for part in vars(loop).values():
        if hasattr(part, "_restarting"):
            _forget_restart(part)
