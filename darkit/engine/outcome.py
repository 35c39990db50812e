"""How a training ended, for its status; and the end of one that has not begun."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

from darkit.engine.data.workers import is_worker_death
from darkit.engine.steps.loss import is_out_of_memory
from darkit.engine.stop import StopTraining
from darkit.errors import NonFiniteLossError, ProcessFailedError, RunReplacedError
from darkit.runs import files, status
from darkit.runs.checkpoints import checkpoint_steps
from darkit.runs.log import last_values

_WAYS_OUT = (KeyboardInterrupt, SystemExit, StopTraining)


def outcome_of(error: BaseException | None, asked: str, *, complete: bool, end_reason: str) -> tuple[str, str, str]:
    """Return the final state of a training, the reason in one sentence, and the traceback of a crash.

    Args:
        error: What ended it, or None.
        asked: Why it was asked to stop, or empty.
        complete: Whether it has made its last planned step.
        end_reason: Why a training that ended well ended before, or empty.
    """
    if asked and (isinstance(error, _WAYS_OUT) or (error is None and not complete)):
        return status.STOPPED, asked, ""
    if error is None:
        return status.FINISHED, end_reason, ""
    if isinstance(error, KeyboardInterrupt):
        return status.STOPPED, "Interrupted from the keyboard.", ""
    text = "".join(traceback.format_exception(error))
    return status.CRASHED, describe_failure(error), text


def describe_failure(error: BaseException) -> str:
    """Return the cause of a failure in one sentence, starting with its common name if it has one."""
    text = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return f"Out of memory: {text}"
    if is_worker_death(error):
        return f"A data worker died: {text}"
    if isinstance(error, ProcessFailedError):
        return str(error)
    if isinstance(error, NonFiniteLossError):
        return str(error)
    return text


def remove_unbegun(folder: Path, first_step: int, check: Callable[[], None], error: BaseException) -> None:
    """Remove a new run whose training failed before it completed a step.

    Args:
        folder: The run directory.
        first_step: The step that it began after; a fork has a checkpoint of it from the start.
        check: Raises `RunReplacedError` if the folder is not the run's any more.
        error: Why it failed; it gets a note if the folder cannot be removed.
    """
    try:
        check()
        last = max(checkpoint_steps(folder), default=-1)
        if last <= (first_step or -1) and not last_values(folder / files.LOG):
            shutil.rmtree(folder)
    except RunReplacedError:  # the folder is now another run's
        return
    except OSError as late:
        error.add_note(f"The run's folder {folder} could not be removed: {late.strerror}.")
