"""One thread that writes snapshots, so that the training goes on while the disk works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from darkit.engine.checkpoints.checkpoint import write_checkpoint
from darkit.engine.checkpoints.snapshot import Snapshot
from darkit.errors import StorageError
from darkit.runs.checkpoints import checkpoint_path, list_checkpoints
from darkit.runs.forks import forget_in_child
from darkit.runs.retention import Retention, remove_files

logger = logging.getLogger(__name__)
_WORTH_TELLING = 0.1  # seconds


class BackgroundWriter:
    """Copies state on the caller's thread and hands the copy to one writing thread.

    There is one copy, so the memory stays bounded: when the disk is slower than the interval between saves, the caller
    waits for the save before, and a warning says for how long. An error of the thread is raised by the next call of any
    method, on the thread that calls it. The thread is there between the first save and `close`, which may alternate.
    """

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._forked = False
        forget_in_child(self)

    def forget(self) -> None:
        """Writes nothing any more: the thread is the parent's, and so are the files."""
        self._forked, self._thread, self._pending = True, None, None

    def submit(self, content: Mapping[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
        """Takes a copy and returns; ``write`` gets it in the thread."""
        if self._forked:
            return
        started = time.monotonic()
        self.wait()
        waited = time.monotonic() - started
        if waited > _WORTH_TELLING:
            logger.warning(
                "The training waited %.1f s for the last checkpoint to reach the disk, which is slower than the saves.",
                waited,
            )
        copied = self._snapshot.take(content)

        def work() -> None:
            self._snapshot.wait()
            write(copied)

        self._start(work)

    def then(self, action: Callable[[], None]) -> None:
        """Lets the thread do something after what it has to do now."""
        if self._forked:
            return
        earlier = self._pending

        def work() -> None:
            if earlier is not None:
                earlier.result()
            action()

        self._start(work)

    def _start(self, work: Callable[[], None]) -> None:
        try:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="darkit-checkpoint")
            self._pending = self._thread.submit(work)
        except RuntimeError:  # the interpreter is ending, and its threads take no more work
            self._pending = None
            work()

    def check(self) -> None:
        """Raises the thread's error, if there is one by now."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until all is written. Raises the thread's error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits and ends the thread. Raises the thread's error."""
        try:
            self.wait()
        finally:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown()


class CheckpointWriter(BackgroundWriter):
    """Writes the checkpoints of a run, and deletes the superseded ones once a new one is durable.

    Args:
        folder: The run directory.
        run_id: The run's id, for the manifests.
        retention: Which ones are kept.
        check: Called before anything is written or deleted; an error that it raises prevents that.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str = "",
        retention: Retention | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._check = check
        self.folder = folder
        self.run_id = run_id
        self.retention = retention or Retention()
        self._told = False

    def save(self, step: int, content: Mapping[str, Any], metrics: Mapping[str, float]) -> Path:
        """Saves a step; returns at once with the path where the checkpoint will be.

        Args:
            step: The step.
            content: What `torch.load` gives back; see `darkit.engine.checkpoints.checkpoint.write_checkpoint`.
            metrics: The values logged at this step.

        Raises:
            StorageError: The save before could not be written.
        """

        def write(copied: dict[str, Any]) -> None:
            self._check()
            try:
                write_checkpoint(self.folder, step, copied, metrics=metrics, run_id=self.run_id, check=self._check)
            except StorageError:
                self._check()  # says it better where the folder is gone
                raise
            self._check()  # a checkpoint takes its time to write, and what is deleted now must be this run's
            self._tell_of_a_missing_score(step, metrics)
            for checkpoint in self.retention.superseded(list_checkpoints(self.folder)):
                remove_files(checkpoint.path)

        self.submit(content, write)
        return checkpoint_path(self.folder, step)

    def _tell_of_a_missing_score(self, step: int, metrics: Mapping[str, float]) -> None:
        wanted = self.retention
        if wanted.best and wanted.monitor not in metrics and not self._told:
            self._told = True
            logger.warning(
                "The checkpoint of step %d has no %r, by which keep_best=%d compares: such checkpoints are kept. Let "
                "save_step_interval be a multiple of eval_step_interval.",
                step,
                wanted.monitor,
                wanted.best,
            )
