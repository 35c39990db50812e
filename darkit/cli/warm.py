"""Imported once by the server that forks the processes of a sweep: what all of them need.

The server leaves the process group of the terminal, so that Ctrl-C and closing the terminal reach the sweep alone,
which then stops its processes in order.
"""

from __future__ import annotations

import os
from contextlib import suppress

import lightning  # noqa: F401
import torch  # noqa: F401

import darkit.cli.trial
import darkit.engine.training  # noqa: F401

with suppress(OSError):  # it is the first of its session already
    os.setpgid(0, 0)
