"""Output to a pipe that its reader closes, as ``head`` does, is dropped without an error."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from darkit.cli.errors import print_error
from darkit.errors import DarkitError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def say(text: str) -> None:
    """Print a line and flush it. If standard output cannot be written to, this line and all later ones are dropped.

    A closed pipe is ignored. A full disk is reported once, to standard error.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        print_error(output_error(error))


@contextmanager
def tolerate_closed_output() -> Iterator[None]:
    """End a block that prints, without an error, once the reader of standard output has closed it.

    Raises:
        StorageError: Standard output is a file on a full disk.
    """
    try:
        try:
            yield
        finally:
            flush_output()
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        if isinstance(error, DarkitError) or error.filename is not None or error.errno not in _FULL:
            raise
        drop_output()
        raise output_error(error) from error


def output_error(error: OSError) -> StorageError:
    """Return the error to raise when standard output cannot be written to."""
    return StorageError(error.errno, f"Cannot write to standard output: {error.strerror}.")


def flush_output() -> None:
    """Flush standard output, ignoring a closed pipe, which the interpreter would report at its exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except ValueError:  # standard output is closed
        pass


def drop_output() -> None:
    """Discard all further output."""
    with suppress(OSError, ValueError, AttributeError):  # standard output has no file descriptor
        output, null = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, output)
        os.close(null)
