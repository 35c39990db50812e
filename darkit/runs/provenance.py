"""The provenance of a run: versions, git, command and host."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from darkit.runs.packages import installed_packages
from darkit.runs.untracked import imported_untracked

_PACKAGES = ("darkit", "torch", "lightning", "numpy", "tokenizers", "transformers")
_LONGEST_DIFF = 200_000  # characters
_DIFF = (  # that `git apply` takes, whatever a person's git is set to
    *("-c", "diff.relative=false", "diff", "--no-ext-diff", "--no-textconv", "--no-color"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--unified=3"),
)
_GIT_PATIENCE = 5.0  # seconds


def describe_environment(folder: Path | None = None) -> dict[str, Any]:
    """Describe the program that starts a run.

    Args:
        folder: Whose git repository counts; by default the working directory.

    Returns:
        ``versions``, ``git`` (the repository's folder, commit, diff and the names of imported files that it does not
        track, or empty outside a repository), ``command``, the working ``folder`` and ``host``; and ``environment``,
        which has a file of its own: ``packages`` (the versions of all that is installed), ``files`` (the content of
        those untracked files) and ``left_out``.
    """
    git, untracked = _git(folder or Path())
    packages = installed_packages()
    return {
        "environment": {"packages": packages, **untracked},
        "versions": {
            "python": platform.python_version(),
            **{name: packages[name] for name in _PACKAGES if name in packages},
        },
        "git": git,
        "command": [sys.executable, *sys.orig_argv[1:]],
        "folder": _absolute(folder or Path()),
        "host": {"name": socket.gethostname(), "system": platform.platform()},
    }


def _absolute(folder: Path) -> str:
    try:
        return str(folder.absolute())
    except FileNotFoundError:  # the working directory was deleted
        return ""


def _git(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the git state of a folder, and the imported files that git does not track."""
    top, _, commit = (_ask_git(folder, "rev-parse", "--show-toplevel", "HEAD") or "").partition("\n")
    if not commit:  # before the first commit everything is untracked
        top = (_ask_git(folder, "rev-parse", "--show-toplevel") or "").rstrip("\n")
    nothing: dict[str, Any] = {"files": {}, "left_out": {}}
    untracked = imported_untracked(Path(top), partial(_ask_git, Path(top))) if top else nothing
    names = [*untracked["files"], *untracked["left_out"]]
    listed = {"untracked": names} if names else {}
    if not commit:
        return ({"top": top, "commit": "", "diff": "", **listed} if names else {}), untracked
    diff = _ask_git(folder, *_DIFF, "HEAD")
    if diff is None:
        diff = "[git could not tell]\n"
    if len(diff) > _LONGEST_DIFF:
        diff = f"{diff[:_LONGEST_DIFF]}\n[{len(diff) - _LONGEST_DIFF} more characters left out]"
    return {"top": top, "commit": commit.strip(), "diff": diff, **listed}, untracked


def _ask_git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository or no answer in time: the run is none the worse
    return answer.stdout.decode("utf-8", "replace")
