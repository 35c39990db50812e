"""Imported code that git does not track: a commit and a diff do not contain it."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from darkit.runs.safe import UnreadableError, open_regular

MOST_FILES = 50
LONGEST_FILE = 100_000  # bytes
MOST_BYTES = 500_000  # of all files together
_MOST_ASKED = 500  # files in one call of git
_SECRET = re.compile(
    r"(^|[._-])(env|secrets?|credentials?|creds|passwords?|passwd|private|api_?keys?|access_?tokens?)([._-]|$)",
    re.IGNORECASE,
)

Git = Callable[..., str | None]


def imported_untracked(top: Path, ask_git: Git) -> dict[str, Any]:
    """Collect the imported files of a repository that git does not track.

    Args:
        top: The repository's folder.
        ask_git: Runs git with arguments in that folder; returns its output, or None if it failed.

    Returns:
        ``files`` (path -> content) and ``left_out`` (path -> reason): files that git ignores, that are named like a
        secret, that are not text, or that exceed a limit.
    """
    paths = imported_files(top)
    if not paths:
        return {"files": {}, "left_out": {}}
    answer = ask_git(
        "--literal-pathspecs", "ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard", "--", *paths
    )
    if answer is None:
        return {"files": {}, "left_out": dict.fromkeys(paths, "git could not tell whether it is tracked")}
    tags = {entry[2:]: entry[0] for entry in answer.split("\0") if len(entry) > 2}
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    size = 0
    for path in paths:
        tag = tags.get(path, "ignored")
        if tag not in ("?", "ignored"):
            continue
        content, reason = (None, "git ignores it") if tag == "ignored" else _read(top / path)
        if content is not None and (len(found) >= MOST_FILES or size + len(content) > MOST_BYTES):
            content, reason = None, "there are too many"
        if content is None:
            left_out[path] = reason
        else:
            found[path] = content.decode()
            size += len(content)
    return {"files": found, "left_out": left_out}


def imported_files(top: Path) -> list[str]:
    """Return the Python files below a folder that this process has imported, relative to it, in order."""
    root = f"{os.path.realpath(top)}{os.sep}"
    libraries = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    found = set()
    for module in list(sys.modules.values()):
        with suppress(Exception):  # any object may stand in for a module
            file = vars(module).get("__file__")
            if not isinstance(file, str) or not file.endswith(".py") or file.startswith(libraries):
                continue
            if "site-packages" in file or "dist-packages" in file:
                continue
            real = os.path.realpath(file)
            if real.startswith(root):
                found.add(real[len(root) :])
    return sorted(found)[:_MOST_ASKED]


def _read(path: Path) -> tuple[bytes | None, str]:
    """Return a file's content, or None and the reason to leave it out."""
    if any(_SECRET.search(part) for part in (path.stem, path.parent.name)):
        return None, "it is named like a secret"
    try:
        with open_regular(path) as descriptor:
            content = os.read(descriptor, LONGEST_FILE + 1)
    except (OSError, UnreadableError):
        return None, "it cannot be read"
    if len(content) > LONGEST_FILE:
        return None, f"it is longer than {LONGEST_FILE} bytes"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None, "it is not text in UTF-8"
    return (None, "it is not text") if "\0" in text else (content, "")
