"""The dashboard during a training, in a separate process as ``darkit start`` starts it."""

from __future__ import annotations

import subprocess
import warnings
from contextlib import suppress
from typing import Any

from darkit.runs.child import environment, python_module

_PATIENCE = 60.0  # seconds


def start_dashboard() -> str:
    """Start the dashboard of the home, unless it is running, and print its address.

    Returns:
        The address; empty, with a warning, if the dashboard cannot be started.
    """
    command = python_module("darkit", "start", "--daemon")
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": _PATIENCE, "env": environment({})}
    try:
        done = subprocess.run(command, **options)
        if done.returncode:  # its usual port is taken
            done = subprocess.run([*command, "--port", "0"], **options)
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(f"The dashboard could not be started: {error}", stacklevel=3)
        return ""
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["it gave no reason."]
        warnings.warn(f"The dashboard could not be started. {reason[0]}", stacklevel=3)
        return ""
    address: str = done.stdout.strip()
    with suppress(BrokenPipeError):  # the output is closed
        print(f"The dashboard is at {address}", flush=True)
    return address
