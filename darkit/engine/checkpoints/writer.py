"""A thread that writes snapshots, so that training continues meanwhile."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist

from darkit.engine.checkpoints.checkpoint import write_checkpoint
from darkit.engine.checkpoints.lighter import remove_optimizer
from darkit.engine.checkpoints.priority import begin_background, hurrying
from darkit.engine.checkpoints.shards import Shard, Split, split
from darkit.engine.checkpoints.snapshot import Snapshot
from darkit.errors import StorageError
from darkit.runs.checkpoints import checkpoint_path, folder_path, list_checkpoints
from darkit.runs.forks import forget_in_child
from darkit.runs.retention import Retention, remove_files

logger = logging.getLogger(__name__)
_WORTH_WARNING = 0.1  # seconds
CheckCopy = Callable[[Mapping[str, Any]], None]
_SHARDS = "shards"  # beside the entries of a checkpoint, none of which has that name


def _accept(copied: Mapping[str, Any]) -> None:
    """Check nothing."""


class BackgroundWriter:
    """Copy state on the caller's thread and write it in another thread.

    To bound the memory there is one copy: if the disk is too slow, the caller waits for the previous save, with a
    warning. An error of the thread is raised by the next call of any method. The thread lives from the first save to
    `close`; later saves start a new one.
    """

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._forked = False
        forget_in_child(self)

    def forget(self) -> None:
        """Stop writing in a forked child: thread and files are the parent's."""
        self._forked, self._thread, self._pending = True, None, None

    def submit(self, content: Mapping[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
        """Copy the content and return; the thread calls ``write`` with the copy."""
        if self._forked:
            return
        started = time.monotonic()
        self.wait()
        waited = time.monotonic() - started
        if waited > _WORTH_WARNING:
            logger.warning(
                "The training waited %.1f s for the previous checkpoint: the disk is too slow for this save interval.",
                waited,
            )
        copied = self._snapshot.copy(content)

        def work() -> None:
            self._snapshot.wait()
            write(copied)

        self._start(work)

    def then(self, action: Callable[[], None]) -> None:
        """Run an action in the thread after the pending write."""
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
                name = "darkit-checkpoint"
                self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=begin_background)
            self._pending = self._thread.submit(work)
        except RuntimeError:  # at interpreter exit no thread can start
            self._pending = None
            work()

    def check(self) -> None:
        """Raise the thread's error, if any; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all is written. Raises the thread's error.

        If the wait is interrupted, the thread still reads the copy, so that the next call waits again.
        """
        pending = self._pending
        if pending is not None:
            try:
                with hurrying():
                    pending.result()
            finally:
                if pending.done():
                    self._pending = None

    def close(self) -> None:
        """Wait and end the thread. Raises the thread's error."""
        try:
            self.wait()
        finally:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown()


class CheckpointWriter(BackgroundWriter):
    """Write the checkpoints of a run, and delete superseded ones once a new one is durable.

    Args:
        folder: The run directory.
        run_id: The run's id, for the manifests.
        retention: The rule for which checkpoints are kept.
        check: Called before each write or deletion; if it raises, nothing is written or deleted.
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
        self._warned = False

    def save(
        self, step: int, content: Mapping[str, Any], metrics: Mapping[str, float], check: CheckCopy = _accept
    ) -> Path:
        """Save a step in the background, as `write_checkpoint` does, and return the path of the checkpoint.

        ``check`` is called in the thread with the copy of the content; if it raises, nothing is written.

        Raises:
            StorageError: The previous save failed.
        """

        def write(copied: dict[str, Any]) -> None:
            self._check()
            check(copied)
            try:
                write_checkpoint(self.folder, step, copied, metrics=metrics, run_id=self.run_id, check=self._check)
            except StorageError:
                self._check()  # a clearer error if the folder is gone
                raise
            self._clean(step, metrics)

        self.submit(content, write)
        return checkpoint_path(self.folder, step)

    def _clean(self, step: int, metrics: Mapping[str, float]) -> None:
        """Delete the checkpoints that the one of this step supersedes, or the state of their optimizer."""
        self._check()  # the folder may have been replaced during the write
        self._warn_of_missing_metric(step, metrics)
        for checkpoint in self.retention.superseded(list_checkpoints(self.folder)):
            remove_files(checkpoint.path)
        for checkpoint in self.retention.too_heavy(list_checkpoints(self.folder)):
            remove_optimizer(checkpoint)

    def _warn_of_missing_metric(self, step: int, metrics: Mapping[str, float]) -> None:
        wanted = self.retention
        if wanted.best and wanted.monitor not in metrics and not self._warned:
            self._warned = True
            logger.warning(
                "The checkpoint of step %d has no %r, which keep_best=%d needs: such checkpoints are kept. Log it "
                "before each save, or make save_step_interval a multiple of eval_step_interval.",
                step,
                wanted.monitor,
                wanted.best,
            )


class ShardedWriter(CheckpointWriter):
    """Write checkpoints of which each process writes its part, in a thread of each.

    The threads communicate in a process group of their own, so that the training does not wait for them. All processes
    must make one, and save the same steps. Superseded checkpoints are deleted by the first process.

    Args:
        like: A writer with the folder, the run's id, the retention and the check of the first process.
    """

    def __init__(self, like: CheckpointWriter) -> None:
        super().__init__(like.folder, run_id=like.run_id, retention=like.retention, check=like._check)
        self._group: Any = dist.new_group(backend="gloo")
        self._is_first = not dist.get_rank()
        token = [os.urandom(6).hex()]
        dist.broadcast_object_list(token, 0, group=self._group)
        self._token = token[0]

    def save(
        self, step: int, content: Mapping[str, Any], metrics: Mapping[str, float], check: CheckCopy = _accept
    ) -> Path:
        """Save a step in the background, as `write_sharded` does, and return the path of the checkpoint.

        Only this process's parts are copied, so there is no ``check``: the caller has checked them in all processes.

        Raises:
            StorageError: The previous save failed, in this or another process.
        """
        from darkit.engine.checkpoints.sharded import write_sharded  # slow to load, and most models are whole

        state = split(content)
        forms = {name: (shard.offset, shard.shape) for name, shard in state.shards.items()}
        rest = state.rest if self._is_first else {}

        def write(copied: dict[str, Any]) -> None:
            local = copied.pop(_SHARDS)
            part = Split(copied, {name: Shard(local[name], *form) for name, form in forms.items()})
            write_sharded(
                self.folder,
                step,
                part,
                metrics=metrics,
                run_id=self.run_id,
                group=self._group,
                token=self._token,
                check=self._check,
            )
            if self._is_first:
                self._clean(step, metrics)

        self.submit({**rest, _SHARDS: {name: shard.local for name, shard in state.shards.items()}}, write)
        return folder_path(self.folder, step)

    def close(self) -> None:
        """Wait, and end the thread and its process group. Raises the thread's error."""
        try:
            super().close()
        finally:
            group, self._group = self._group, None
            if group is not None and not self._forked:
                dist.destroy_process_group(group)
