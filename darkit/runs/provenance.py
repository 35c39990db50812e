"""Where a run comes from: versions, git, command and host, so that it can be told apart and repeated."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("darkit", "torch", "lightning", "numpy", "tokenizers", "transformers")
_LONGEST_DIFF = 200_000  # characters
_GIT_PATIENCE = 5.0  # seconds


def describe_environment(folder: Path | None = None) -> dict[str, Any]:
    """Collects what is known about the program that starts a run.

    Args:
        folder: Whose git repository counts; by default the working directory.

    Returns:
        ``versions``, ``git`` (commit and diff, or empty outside a repository), ``command`` and ``host``.
    """
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git(folder or Path()),
        "command": [sys.executable, *sys.orig_argv[1:]],
        "host": {"name": socket.gethostname(), "system": platform.platform()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, str]:
    commit = _ask_git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    diff = _ask_git(folder, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    if diff is None:
        diff = "[git could not tell]\n"
    if len(diff) > _LONGEST_DIFF:
        diff = f"{diff[:_LONGEST_DIFF]}\n[{len(diff) - _LONGEST_DIFF} more characters left out]"
    return {"commit": commit.strip(), "diff": diff}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository or no answer in time: the run is none the worse
    return answer.stdout.decode("utf-8", "replace")
