"""Imported once by the server that forks the processes of a sweep: what all of them need.

The server leaves the process group of the terminal, so that Ctrl-C and closing the terminal reach the sweep alone,
which then stops its processes in order. It does so before the imports, which take seconds.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

_before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C from before it left the group is dropped
with suppress(OSError):  # it is the first of its session already
    os.setpgid(0, 0)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which `darkit.sweep.pool` has blocked

import lightning  # noqa: E402, F401
import torch  # noqa: E402, F401

import darkit.cli.trial  # noqa: E402
import darkit.engine.training  # noqa: E402, F401

signal.signal(signal.SIGINT, _before)  # the processes that it forks heed it
