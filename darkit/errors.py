"""All exceptions that darkit raises on purpose. This module imports nothing of darkit.

Each is also the builtin that people already catch (``ValueError``, ``FileNotFoundError``, ...). Its message says what
is wrong, the value given and what to do. The command line prints the message and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_BREAKS = str.maketrans("-/", "__")  # between the words of a name
_FROM_WORKER = "Caught "  # the start of torch's message for an error in a data worker; the traceback follows


class DarkitError(Exception):
    """Base class of all errors that a user can fix."""

    def __str__(self) -> str:
        text = super().__str__()
        if not text.startswith(_FROM_WORKER):
            return text
        kind = type(self)
        return text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()


class NameInvalidError(DarkitError, ValueError):
    """A run name that cannot be a folder directly below the root."""


class RunExistsError(DarkitError, FileExistsError):
    """The name of a new run is already in use."""


class RunLockedError(DarkitError, BlockingIOError):
    """Another process is training this run."""


class RunNotFoundError(DarkitError, FileNotFoundError):
    """No run has this name."""


class CheckpointNotFoundError(DarkitError, FileNotFoundError):
    """The run has no such checkpoint."""


class CheckpointMismatchError(DarkitError, ValueError):
    """A checkpoint does not fit the model it is loaded into."""


class CheckpointCorruptError(DarkitError, ValueError):
    """A checkpoint file cannot be read, or does not match its manifest."""


class CheckpointUnreadableError(DarkitError, TypeError):
    """Checkpoint content that could not be read back without running code."""


class ConfigError(DarkitError, ValueError):
    """An unknown setting, or a value of the wrong type or out of range."""


class QueryError(ConfigError):
    """A query that cannot be read, or that asks for what no run has.

    Args:
        sentence: What is wrong.
        start: Where in the query it begins, in characters.
        end: Where it ends.
    """

    def __init__(self, sentence: str = "", start: int = 0, end: int = 0) -> None:
        super().__init__(sentence)
        self.start = start
        self.end = end


class DataError(DarkitError, ValueError):
    """Data that cannot be trained on: empty, or of an unknown kind."""


class ModelError(DarkitError, TypeError):
    """An unusable model, or a model class that cannot be found."""


class BatchError(DarkitError, RuntimeError):
    """The model raised an error on a batch; the message has the batch's shapes and dtypes."""


class LossError(DarkitError, ValueError):
    """No loss was found, or the loss cannot be trained on."""


class OutOfMemoryError(DarkitError, MemoryError):
    """Not enough host memory for a batch, in training or prediction; accelerators raise torch's own error."""


class ProcessFailedError(DarkitError, RuntimeError):
    """Another process of the same training failed, died or never came."""


class NonFiniteLossError(DarkitError, ArithmeticError):
    """The loss became NaN or infinite.

    Args:
        sentence: What happened.
        step: The step of which the loss or a weight is not finite, or None if it is unknown.
    """

    def __init__(self, sentence: str = "", step: int | None = None) -> None:
        super().__init__(sentence)
        self.step = step


class LogError(DarkitError, ValueError):
    """A row that does not fit the columns of the log."""


class MediaError(DarkitError, ValueError):
    """An image, a sound, a text, a table or a figure that cannot be logged, or cannot be read again."""


class ObjectiveMissingError(DarkitError, ValueError):
    """A run's log has no column of the name that a sweep optimises."""


class SweepError(DarkitError, RuntimeError):
    """A sweep that does not exist, is running already, or differs from the one recorded under its name."""


class SourceError(DarkitError, ValueError):
    """Logs of another tool that are not recognised or cannot be read."""


class StorageError(DarkitError, OSError):
    """The file system failed: no space, no permission, not a folder."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # without a leading "[Errno 28]"


class RunReplacedError(StorageError):
    """The run directory was deleted, moved or replaced during training."""


class UnsupportedError(DarkitError, AttributeError):
    """A function or class of another library that darkit does not have."""


class NotesChangedError(DarkitError, ValueError):
    """A run's note was changed by someone else since it was read."""


class DeviceWarning(UserWarning):
    """The requested device is not available; the CPU is used instead."""


class ReproductionWarning(UserWarning):
    """A run cannot be reproduced exactly: something was not recorded, or has changed."""


class ServerError(DarkitError, OSError):
    """The dashboard cannot be started or stopped."""


def first_error(error: BaseException | None, late: BaseException, what: str) -> BaseException:
    """Return the first of two errors, with a note that ``what`` failed later if the second one says something else."""
    if error is not None and str(late) != str(error):
        error.add_note(f"The {what} could not be completed either: {str(late) or type(late).__name__}")
    return late if error is None else error


def nearest(wanted: str, existing: Iterable[str], *, limit: int = 8) -> str:
    """List the available names, most similar first, and suggest the first one if it may be meant.

    A similar name with another first word, such as ``train_loss`` for ``val_loss``, is not suggested.

    Args:
        wanted: The unknown name.
        existing: The available names.
        limit: Maximum number of names.

    Returns:
        Text without a full stop, such as ``"Did you mean 'lr'? Available: lr, batch_size"`` or ``"Available: none"``.
    """
    names = sorted(existing)
    close = get_close_matches(wanted, names, n=limit, cutoff=0.6)
    close.sort(key=lambda name: not _may_mean(wanted, name))
    ordered = close + [name for name in names if name not in close]
    hint = f"Did you mean {close[0]!r}? " if close and _may_mean(wanted, close[0]) else ""
    return f"{hint}Available: {listing(ordered, limit=limit) or 'none'}"


def _may_mean(wanted: str, name: str) -> bool:
    """Return whether two names begin with similar words, one contains the other, or one is a single word."""
    if wanted in name or name in wanted:
        return True
    (first, several, _), (other, too, _) = (text.translate(_BREAKS).partition("_") for text in (wanted, name))
    return not (several and too) or bool(get_close_matches(first, [other], cutoff=0.5))


def listing(names: Sequence[str], *, limit: int = 8) -> str:
    """Join names with commas; count those beyond ``limit``."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
