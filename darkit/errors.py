"""Every exception that darkit raises on purpose: a leaf of the dependency tree.

Each one is also the builtin that people already catch (``ValueError``, ``FileNotFoundError``, ...), and its text is one
sentence that says what was wrong, which value, and what would be right. The command line prints that sentence and exits
with 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_FROM_WORKER = "Caught "  # how torch begins an error of a worker process that loads data, with its traceback behind


class DarkitError(Exception):
    """Base of all errors that a user can mend."""

    def __str__(self) -> str:
        text = super().__str__()
        if not text.startswith(_FROM_WORKER):
            return text
        kind = type(self)
        return text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()


class NameInvalidError(DarkitError, ValueError):
    """A run name that cannot be a folder directly below the root."""


class RunExistsError(DarkitError, FileExistsError):
    """A new run was asked for under a name that is taken."""


class RunLockedError(DarkitError, BlockingIOError):
    """Another process is training this run."""


class RunNotFoundError(DarkitError, FileNotFoundError):
    """No run has this name."""


class CheckpointNotFoundError(DarkitError, FileNotFoundError):
    """The run has no such checkpoint."""


class CheckpointMismatchError(DarkitError, ValueError):
    """A checkpoint does not fit the model it is loaded into."""


class CheckpointCorruptError(DarkitError, ValueError):
    """A checkpoint file cannot be read, or is not what its manifest says."""


class CheckpointUnreadableError(DarkitError, TypeError):
    """A checkpoint was to hold something that could not be read again without running code."""


class ConfigError(DarkitError, ValueError):
    """A config value that is unknown, of the wrong type or out of range."""


class DataError(DarkitError, ValueError):
    """Data that cannot be trained on: empty, or of an unknown kind."""


class ModelError(DarkitError, TypeError):
    """Something that is not a usable model, or whose class cannot be found."""


class BatchError(DarkitError, RuntimeError):
    """The model raised an error on a batch; the text names the batch's shapes and dtypes."""


class LossError(DarkitError, ValueError):
    """No loss could be found, or what was found cannot be trained on."""


class OutOfMemoryError(DarkitError, MemoryError):
    """The memory of the host did not suffice for a batch; on an accelerator it is torch's own ``OutOfMemoryError``."""


class NonFiniteLossError(DarkitError, ArithmeticError):
    """The loss became NaN or infinite."""


class LogError(DarkitError, ValueError):
    """A row that does not fit the log's columns."""


class StorageError(DarkitError, OSError):
    """The file system refused: no space, no permission, not a folder."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # the sentence, without an "[Errno 28]" before it


class RunReplacedError(StorageError):
    """The folder that a training writes into was deleted, moved or replaced while it trained."""


class NotesChangedError(DarkitError, ValueError):
    """Somebody else has changed a run's note since it was read."""


class DeviceWarning(UserWarning):
    """The device that was asked for is not there, and the CPU is used instead."""


class ReproductionWarning(UserWarning):
    """Something of a run could not be recorded, or is not as it was: it can only be repeated or used with help."""


class ServerError(DarkitError, OSError):
    """The dashboard cannot be served, or not ended, as was asked."""


def nearest(wanted: str, existing: Iterable[str], *, limit: int = 8) -> str:
    """Says what there is, nearest to what was wanted first.

    Args:
        wanted: What was asked for.
        existing: What there is.
        limit: How many to name at most.

    Returns:
        A clause such as ``"did you mean 'lr'? There is: lr, batch_size"``, or ``"there is none"``.
    """
    names = sorted(existing)
    if not names:
        return "there is none"
    close = get_close_matches(wanted, names, n=limit, cutoff=0.6)
    ordered = close + [name for name in names if name not in close]
    hint = f"did you mean {close[0]!r}? There" if close else "there"
    return f"{hint} is: {listing(ordered, limit=limit)}"


def listing(names: Sequence[str], *, limit: int = 8) -> str:
    """Joins names with commas, and says how many more than ``limit`` there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
