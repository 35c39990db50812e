"""Forks: which run and checkpoint a run began from, how it differs from that run, and which runs began from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from darkit.errors import RunNotFoundError
from darkit.runs import files
from darkit.runs.inert import format_json
from darkit.runs.listing import run_names
from darkit.runs.names import split_reference
from darkit.runs.run import Run, load
from darkit.runs.safe import UnreadableError, as_dict, read_bytes

_MOST_ANCESTORS = 100


def find_parent(reference: str, *, root: Path | None = None) -> tuple[Run, str | None]:
    """Find the run that a fork names.

    Args:
        reference: ``NAME`` or ``NAME:CHECKPOINT``; or, for a run of another home, the path of its folder in place of
            the name.
        root: The folder of the runs; by default below the home.

    Returns:
        The run, and the checkpoint's name or None for the latest.

    Raises:
        NameInvalidError: The name is not valid.
        RunNotFoundError: There is no such run.
    """
    folder, slash, last = reference.rpartition(os.sep)
    if not slash:
        name, wanted = split_reference(reference)
        return load(name, root=root), wanted
    name, wanted = split_reference(last)
    path = Path(folder + slash).expanduser() / name
    if not (path / files.RUN).is_file():
        raise RunNotFoundError(f"There is no run in {path}: it has no {files.RUN}.")
    return Run(path), wanted


def describe_fork(fork: dict[str, Any]) -> list[tuple[str, str]]:
    """Describe a run's fork for a person.

    Args:
        fork: ``fork`` of a run; anybody may have written it.

    Returns:
        Names and texts: the parent, what differs from it, and its own parents. Empty for a run that is no fork.
    """
    if not fork:
        return []
    digest = str(fork.get("sha256") or "")[:12]
    rows = [("fork of", f"{fork.get('parent')}:{fork.get('checkpoint')}" + (f" (sha256 {digest})" if digest else ""))]
    changes = changes_of(fork)
    text = ", ".join(f"{key} {_short(before)} -> {_short(now)}" for key, (before, now) in changes.items())
    rows.append(("differs from parent", text or "in nothing"))
    if ancestors := ancestors_of(fork):
        steps = " of ".join(f"{ancestor.get('parent')}:{ancestor.get('checkpoint')}" for ancestor in ancestors)
        rows.append(("which is a fork of", steps))
    return rows


def fork_line(name: str, fork: dict[str, Any]) -> str:
    """Return which run and checkpoint a fork began from, and what differs, in one line."""
    changes = ", ".join(f"{key} {_short(before)} -> {_short(now)}" for key, (before, now) in changes_of(fork).items())
    start = str(fork.get("checkpoint")).removesuffix("-ckpt")
    return f"{name}: fork of {fork.get('parent')}:{start}, {changes or 'with its settings'}"


def changes_of(fork: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which a fork differs from its parent: name -> (value there, value here)."""
    pairs = as_dict(fork.get("changes")).items()
    return {str(key): (pair[0], pair[1]) for key, pair in pairs if isinstance(pair, list) and len(pair) == 2}


def changed_from(info: dict[str, Any], step: int) -> set[str]:
    """Return the names of the settings that resumes at a step or later ones changed: its checkpoint has the others."""
    entries = info.get("continued")
    found: set[str] = set()
    for entry in map(as_dict, entries if isinstance(entries, list) else []):
        after = entry.get("after_step")
        if type(after) is int and after >= step:
            found.update(map(str, as_dict(entry.get("changes"))))
    return found


def ancestors_of(fork: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parents of a fork's parent, nearest first: each with ``parent``, ``parent_id`` and ``checkpoint``."""
    found = fork.get("ancestors")
    return [one for one in found if isinstance(one, dict)][:_MOST_ANCESTORS] if isinstance(found, list) else []


def forks_of(folder: Path, id: object) -> list[tuple[str, str]]:
    """Find the runs beside a run that are forks of it, by name.

    Args:
        folder: The run's folder.
        id: Its id; a fork that records no id of its parent is found by the parent's name.

    Returns:
        The name of each, and the checkpoint from which it began, which anybody may have written.

    Raises:
        StorageError: The folder around it cannot be read.
    """
    found = []
    for name in run_names(folder.parent):
        try:
            data = read_bytes(folder.parent / name / files.RUN)
        except (OSError, UnreadableError):
            continue
        if b'"fork"' not in data:  # most runs are none, and there may be ten thousand
            continue
        fork = as_dict(files.read_json(folder.parent / name / files.RUN).get("fork"))
        same = fork["parent_id"] == id if fork.get("parent_id") else fork.get("parent") == folder.name
        if same and fork:
            found.append((name, str(fork.get("checkpoint") or "")))
    return sorted(found)


def ancestry(parent: Run) -> list[dict[str, Any]]:
    """Return what a fork of a run records as its ``ancestors``."""
    fork = parent.fork
    if not fork:
        return []
    own = {key: fork.get(key) for key in ("parent", "parent_id", "checkpoint")}
    return [own, *ancestors_of(fork)][:_MOST_ANCESTORS]


def _short(value: Any) -> str:
    return format_json(value, indent=None)[:100]
