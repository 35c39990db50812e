"""A run around a loop that somebody else wrote: `start_run`, and the `ActiveRun` that it returns."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from darkit.core.loop_checkpoint import loop_checkpoint, loop_values, restore_loop
from darkit.core.loop_rows import LoopRows, check_step, metrics_of, whole_step
from darkit.core.loop_start import LoopStart, open_loop, record_model
from darkit.core.loop_work import CountsSteps
from darkit.engine.data.workers import may_follow_worker_death
from darkit.engine.processes import agree_to_stop, process_group
from darkit.engine.stop import StopTraining, is_interactive
from darkit.errors import ConfigError, LogError
from darkit.runs.checkpoints import checkpoint_path
from darkit.runs.forks import forget_in_child

logger = logging.getLogger(__name__)
_open_runs: dict[Path, ActiveRun] = {}


def start_run(
    name: str | None = None,
    *,
    project: str | None = None,
    config: Any = None,
    max_step: int | None = None,
    model: Any = None,
    tokenizer: Any = None,
    resume: bool | str | None = None,
    keep_last: int | None = None,
    keep_best: int = 0,
    monitor: str = "val_loss",
    mode: str = "auto",
    series: Mapping[str, Sequence[str]] | None = None,
    tensorboard: bool = True,
    console: bool = True,
) -> ActiveRun:
    """Start a run around a loop of your own: ``with darkit.start_run("my-run") as run:``.

    Args:
        name: The run's name; None generates one.
        project: The project that the run belongs to, named as a run is; None for none. A resumed run keeps its own.
        config: The settings to record in ``config.json``: a mapping, a dataclass, a namespace or any object with
            attributes. A resumed run keeps its own if it is None.
        max_step: The step at which the loop will end, for the progress; None if it is not known.
        model: The module, so that `darkit.core.Predicter` finds it by the run's name; by default the one given to
            `ActiveRun.save` first.
        tokenizer: Exported with the run; as in `darkit.fit`.
        resume: True resumes the run called ``name``; ``"NAME"`` or ``"NAME:CHECKPOINT"`` resumes that run or, given
            another ``name``, starts a new run from its weights; ``"auto"`` resumes the run called ``name`` if it
            exists, and starts it otherwise. `ActiveRun.restore` then gives everything back.
        keep_last: Number of latest checkpoints kept; None keeps all or, with ``keep_best``, those it needs.
        keep_best: Number of best checkpoints kept in addition.
        monitor: The logged value that decides which checkpoint is best.
        mode: ``min``, ``max``, or ``auto`` to go by the name of ``monitor``.
        series: The curves to show: name -> [x column, y column]; by default all numbers over the step.
        tensorboard: Whether the log also goes to TensorBoard.
        console: Whether to record what the process prints.

    Returns:
        The open run. It ends with its ``with`` block, with `ActiveRun.finish`, or with the process.

    Raises:
        DarkitError: A mistake that the user can fix; nothing is left behind.
    """
    start = open_loop(
        name=name,
        project=project,
        config=config,
        settings={
            "max_step": max_step,
            "keep_last": keep_last,
            "keep_best": keep_best,
            "monitor": monitor,
            "mode": mode,
            "tensorboard": tensorboard,
            "console": console,
        },
        model=model,
        tokenizer=tokenizer,
        resume=resume,
        series=series,
        is_open=_open_runs.get,
    )
    return ActiveRun(start)


class ActiveRun(CountsSteps):
    """An open run of a loop of your own, from `start_run`.

    As a context manager it ends as `darkit.fit` does: ``finished``, ``stopped`` after a signal or a request to stop, or
    ``crashed`` with the traceback. In a ``with`` block the first signal (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP) and a
    request to stop end the loop at the end of a step: in `save`, if this step is logged, or in the `log` call that
    would begin the next one. Before the first step they end it at once. Outside of a block signals act as usual.

    In a forked child, and in all but the first of several processes, nothing is written. Methods may be called from any
    thread.

    Attributes:
        config: The recorded settings.
        state: The plain values in the checkpoint that the run resumes from, by name; else empty.
    """

    def __init__(self, start: LoopStart) -> None:
        self.config: dict[str, Any] = start.config
        self.state: dict[str, Any] = loop_values(start.content)
        self._session = start.session
        self._session.guard.promise = "stopping after this step"  # the loop itself saves
        self._found, self._content = start.found, start.content
        self._max_step, self._size = start.max_step, start.size
        self._described = start.described
        self._lock = threading.RLock()
        self._writer = start.session.writer
        self._rows = LoopRows(start.session.stream, self._lock) if start.session.stream is not None else None
        self._step = start.session.step
        self._first = self._step + 1 if start.is_resumed else 0
        self._block: int | None = None
        self._closed = self._begun = self._is_stopping = self._reads_stop = self._warned = False
        self._interactive = is_interactive()
        self._error_before = getattr(sys, "last_value", None)
        _open_runs[self.path] = self
        atexit.register(self._end_at_exit)
        forget_in_child(self)

    def forget(self) -> None:
        """Leave the run to the parent: a forked child writes nothing and ends nothing."""
        self._lock = threading.RLock()  # another thread of the parent may hold the old one for ever
        self._writer = self._rows = None
        atexit.unregister(self._end_at_exit)

    def __repr__(self) -> str:
        return f"ActiveRun({self.name!r}, step {self._step}, {str(self.path)!r})"

    @property
    def name(self) -> str:
        """The run's name."""
        return self._session.folder.name

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._session.folder

    @property
    def step(self) -> int:
        """The last step that was logged, saved or resumed from."""
        return self._step

    @property
    def should_stop(self) -> bool:
        """Whether a stop was requested: by a signal, ``darkit stop`` or the dashboard.

        In several processes with a process group it is the same in all of them; all must read it at the same step.
        """
        if self._session.forked or self._closed:
            return False
        if self._size > 1 and not self._reads_stop and self._block is not None:
            self._session.guard.install()
        self._reads_stop = True
        request = self._session.guard.request
        if process_group()[1] == 1:
            return bool(request.reason)
        agreed = agree_to_stop(bool(request.reason))
        if agreed:
            request.ask("Stopped with another process of this training.")
        return agreed  # a request that came since is agreed on at the next step

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log values of a step, without waiting for a disk or an accelerator.

        All calls of one step make one row, which is written when the next step begins, at the latest ten seconds after
        the last call. Tensors may be changed afterwards: what is logged is the value at the call.

        Args:
            values: By column, new ones at any time: numbers, tensors and arrays of one element, and short texts; or
                media, which become files: `darkit.Image`, `Audio`, `Text`, `Histogram` and `Table`, figures of
                matplotlib and plotly, images of Pillow, and arrays and tensors of bytes or fractions like images.
            step: The step, not smaller than before; None is the next one.

        Raises:
            LogError: A value, a column or the step does not fit; nothing of this call is logged.
            MediaError: A medium does not fit, likewise; or the run has too many.
            StorageError: Earlier rows or checkpoints could not be written.
            RunReplacedError: The run directory was deleted, moved or replaced.
        """
        with self._lock:
            rows = self._rows
            if rows is None or self._closed:
                self._follow(step)
                return
            values = rows.checked(values)
            if step is None:
                step = self._step + 1
            row = rows.row
            if row is None or step != rows.step:
                row = self._begin_row(rows, whole_step(step, LogError))
            row.update(values)
            rows.touched = True
            if rows.media:
                rows.put_media()

    def save(self, model: Any = None, optimizer: Any = None, step: int | None = None, **state: Any) -> Path:
        """Save a checkpoint: a copy is made now, and a thread makes it durable.

        Args:
            model: The module; wrappers of torch are ignored.
            optimizer: The optimizer, or a list or dict of them.
            step: The step, not smaller than the one logged last; None is that one.
            **state: Anything else that a resumed loop needs: objects with ``state_dict`` and ``load_state_dict``, such
                as schedules, scalers, samplers and further models; generators of torch; and plain values (numbers,
                text, tensors, arrays, lists and dicts of them). The states of the global generators are always saved.

        Returns:
            The checkpoint's file.

        Raises:
            ConfigError: The step is not a whole number, or smaller than the last one.
            DarkitError: A value cannot be saved; nothing was written.
            StorageError: The previous checkpoint could not be written.
        """
        with self._lock:
            step = self._step if step is None else whole_step(step, ConfigError)
            if self._closed:
                raise ConfigError(f"The run {self.name!r} has ended: nothing can be saved.")
            if step < self._step:
                raise ConfigError(
                    f"save(step={step}) is before step {self._step}: use the same count of steps as log()."
                )
            path = checkpoint_path(self.path, step)
            rows = self._rows
            if self._writer is None or rows is None:
                self._follow(step)
                return path
            content = loop_checkpoint(step, model, optimizer, state)
            values = content["loop"]["row"] = rows.numbers(step)
            if not self._described and model is not None:
                self._described = True
                record_model(self._session, model)
            if rows.step < step:
                rows.put()  # the row of an earlier step is complete
            rows.flush()
            self._writer.save(step, content, metrics_of(values))
            self._step = self._session.step = step
            if rows.step == step and self._session.guard.request.reason and self._can_stop():
                raise StopTraining
            return path

    def restore(self, model: Any = None, optimizer: Any = None, **state: Any) -> int:
        """Restore everything from the checkpoint that the run resumes from, and the generators; see `save`.

        A new run restores nothing. One that starts from another run's weights restores the model alone.

        Args:
            model: The module that gets the weights.
            optimizer: The optimizer, or the list or dict of them.
            **state: The other objects, under the names that they were saved by. Plain lists and dicts are refilled;
                `state` has the other plain values.

        Returns:
            The last completed step: the loop starts after it.

        Raises:
            ConfigError: It comes after the first step of this loop, or a plain value is given.
            CheckpointMismatchError: Something was not saved, or does not fit.
        """
        if self._begun or self._closed:
            raise ConfigError("restore() must be called before the first log().")
        found = self._found
        if found is None or found.checkpoint is None:
            return self._step
        if not found.same_run and (optimizer is not None or state):
            raise ConfigError(
                f"A new run from the weights of {found.run.name!r} restores the model alone: run.restore(model=...)."
            )
        if not found.same_run:
            restore_loop({**self._content, "loop": {}, "optimizer_state_dict": None}, model, None, {}, generators=False)
        else:
            restore_loop(self._content, model, optimizer, state, generators=self._session.writes)
            if self._size > 1 and not self._session.writes:
                logger.warning("The generators of this process are not restored: only those of process 0 are saved.")
        return self._step

    def finish(self) -> None:
        """End the run: ``finished``, or ``stopped`` after a request. A second call does nothing.

        Raises:
            StorageError: Something could not be written.
        """
        self._end(None)

    def __enter__(self) -> Self:
        self._block = threading.get_ident()
        if self._size > 1 and not self._reads_stop:
            self._session.guard.install_for_launcher(lambda: self._end(StopTraining()))
        elif self._size > 1:
            self._session.guard.install()
        elif not self._begun:
            self._session.guard.install_before_steps()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._block = None
        if self._session.forked:
            return False
        guard, writes = self._session.guard, self._session.writes
        guard.hold()
        if isinstance(error, StopTraining) or (
            error is not None and may_follow_worker_death(error) and guard.is_asked_soon()
        ):  # the signal went to the data workers as well
            self._end(StopTraining())
            guard.request.end_process()
            return True
        self._end(None if isinstance(error, SystemExit) and not error.code else error)
        if error is None and (writes or self._size > 1):
            guard.request.end_process()
        return False

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            if self._closed or self._session.forked:
                return
            late: Exception | None = None
            try:
                if self._rows is not None:
                    self._rows.put(raises=False)  # the log raises it when it is closed
            except Exception as failure:
                late = failure
            self._closed, self._content = True, {}
            atexit.unregister(self._end_at_exit)
            if _open_runs.get(self.path) is self:
                del _open_runs[self.path]
        self._session.end(error or late)
        if late is not None and error is None:
            raise late

    def _end_at_exit(self) -> None:
        """End a run that is still open when the process ends: by an uncaught exception, or without `finish`."""
        error = getattr(sys, "last_value", None)
        if error is not None and error is not self._error_before:
            self._end(error)
            return
        if self._step != self._max_step:
            of = "" if self._max_step is None else f" of {self._max_step}"
            self._session.end_reason = f"The program ended at step {self._step}{of} without finish()."
        self._end(None)

    def _begin_row(self, rows: LoopRows, step: int) -> dict[str, Any]:
        check_step(self.name, step, self._first, self._step)
        if not self._begun:
            self._begin_loop()
        if step > rows.step:
            if self._session.guard.request.reason:
                self._stop_if_told_before()
            if self._writer is not None:
                self._writer.check()
        if self._interactive:  # an error before this step did not end the loop
            self._error_before = getattr(sys, "last_value", None)
        self._step = self._session.step = step
        return rows.begin(step)

    def _begin_loop(self) -> None:
        self._begun, self._content = True, {}
        if self._can_stop():  # a loop that logs its steps can be stopped between them
            self._session.guard.install()

    def _follow(self, step: int | None) -> None:
        """Count a step in a process that does not write."""
        if self._closed:
            raise LogError(f"The run {self.name!r} has ended: nothing can be logged.")
        self._begun = True
        self._step = max(self._step, self._step + 1 if step is None else whole_step(step, LogError))

    def _can_stop(self) -> bool:
        """Return whether this call may leave the loop: it is in the block, and no other process waits for this one."""
        return self._size == 1 and self._block == threading.get_ident()

    def _stop_if_told_before(self) -> None:
        """Leave the loop, unless the step in which the request came could not be saved yet."""
        if not self._is_stopping:
            self._is_stopping = True
        elif self._can_stop():
            raise StopTraining
        elif not self._reads_stop and not self._warned:
            self._warned = True
            logger.warning(
                "A stop of run %r was requested, but its loop continues: it neither reads run.should_stop nor runs in "
                "one process in a with block.",
                self.name,
            )
