"""Standard output that its reader closes, as ``head`` does: not an error, and no reason to stop."""

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
    """Print a line at once. When standard output cannot be written to, this line and all later ones are dropped.

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
def until_nobody_reads() -> Iterator[None]:
    """End a block that prints when nobody reads standard output any more, without an error.

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
    """Says in one sentence that standard output cannot be written to."""
    return StorageError(error.errno, f"Cannot write to standard output: {error.strerror}.")


def flush_output() -> None:
    """Write what was printed, as far as anybody reads it: at its exit the interpreter would report a closed pipe."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except ValueError:  # somebody closed it
        pass


def drop_output() -> None:
    """Discard everything that is printed from now on."""
    with suppress(OSError, ValueError, AttributeError):  # it is not a file of the system's
        output, nowhere = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)
