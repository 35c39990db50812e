"""The recorded code of a run as a folder: its commit, diff and untracked files in a git worktree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from darkit.errors import ConfigError, listing
from darkit.runs import Run
from darkit.runs.inert import inert
from darkit.runs.safe import as_dict

_MOST_COPIED = 2**28  # bytes of all that git does not track
_MOST_ENTRIES = 10_000
_UNREADABLE = "\ufffd"  # in place of bytes that are no UTF-8
_PREFIXED = re.compile(r'diff --git "?([a-z])/.* "?(?!\1/)[a-z]/')  # two different prefixes
_CUT = "more characters left out]"
_UNKNOWN = "[git could not tell]"
_PATIENCE = 300.0  # seconds of one git command
_CODE = (".py", ".pyc", ".pyi", ".so")
_HIDDEN = "."


@dataclass
class RestoredCode:
    """Where the recorded code is.

    Attributes:
        folder: The working directory to run in.
        top: The folder that holds the code: a worktree or, for code that was not in a repository, the original.
        original: The repository's folder, in which the run was started.
        facts: What was restored, and what could not be, in sentences.
    """

    folder: Path
    top: Path
    original: Path
    facts: list[str] = field(default_factory=list)


@contextmanager
def restored_code(run: Run, where: Path) -> Iterator[RestoredCode]:
    """Restore the code of a run in a new folder ``where``, which the caller removes.

    The run's repository is only read, except for the list of its worktrees; what the code writes into data that is too
    large to be copied, and is linked, is said.

    Raises:
        ConfigError: Something was not recorded, or the repository no longer has the commit.
    """
    info, environment = run.info, run.environment
    git = as_dict(info.get("git"))
    folder = _recorded_folder(info)
    if not git:
        yield _unrecorded(run, folder)
        return
    commit, diff = str(git.get("commit") or ""), str(git.get("diff") or "")
    _refuse_incomplete(run, diff)
    original = _repository(run, git, commit)
    inside = _below(folder, Path(str(git.get("top") or original)))
    if commit:
        _git(original, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(where), commit)
    else:
        where.mkdir()
    try:
        if diff:
            try:
                _git(where, "apply", "--whitespace=nowarn", "-", content=diff)
            except ConfigError as error:
                raise ConfigError(f"The recorded changes of run {run.name!r} cannot be applied: {error}") from error
        written = _write_files(where, as_dict(environment.get("files")))
        data = _Data()
        _bring_data(original, where, data)
        facts = _facts(commit, diff, written, as_dict(environment.get("left_out")), data)
        started = where / inside
        started.mkdir(parents=True, exist_ok=True)
        yield RestoredCode(started, where, original, facts)
    finally:
        if commit:
            _git(original, "worktree", "remove", "--force", str(where))


def _unrecorded(run: Run, folder: Path | None) -> RestoredCode:
    if folder is None or not folder.is_dir():
        raise ConfigError(
            f"The run {run.name!r} was not started in a git repository, and its working directory is missing: nothing "
            "tells what code it ran."
        )
    fact = f"code: not in a git repository, so the files in {folder} are those of today"
    return RestoredCode(folder, folder, folder, [fact])


def _recorded_folder(info: dict[str, Any]) -> Path | None:
    folder = info.get("folder")
    return Path(folder) if isinstance(folder, str) and folder else None


def _below(folder: Path | None, top: Path) -> Path:
    """Return a folder relative to its repository; the repository's own where it is not known."""
    if folder is None:
        return Path()
    try:
        found = Path(os.path.relpath(os.path.realpath(folder), os.path.realpath(top)))
    except ValueError:
        return Path()
    return Path() if ".." in found.parts else found


def _refuse_incomplete(run: Run, diff: str) -> None:
    if diff.rstrip().endswith(_CUT):
        raise ConfigError(
            f"The changes that run {run.name!r} had beside its commit were too large to be recorded whole."
        )
    if not all(map(_PREFIXED.match, (line for line in diff.split("\n") if line.startswith("diff --git ")))):
        raise ConfigError(
            f"The changes that run {run.name!r} had beside its commit were recorded without whole paths, by an earlier "
            "version of darkit where git was set to diff.noprefix."
        )
    if _UNREADABLE in diff:
        raise ConfigError(f"The changes that run {run.name!r} had beside its commit are not all text in UTF-8.")
    if _UNKNOWN in diff[: len(_UNKNOWN) + 1]:
        raise ConfigError(f"Git could not tell what changes run {run.name!r} had beside its commit.")


def _repository(run: Run, git: dict[str, Any], commit: str) -> Path:
    """Return the repository that has the commit: the recorded one, or that of the working directory."""
    known = [Path(str(git["top"]))] if git.get("top") else []
    for folder in [*known, Path.cwd()]:
        try:
            top = Path(_git(folder, "rev-parse", "--show-toplevel").strip())
            if commit:
                _git(top, "cat-file", "-e", f"{commit}^{{commit}}")
        except ConfigError:
            continue
        return top
    places = listing([str(folder) for folder in [*known, Path.cwd()]])
    raise ConfigError(
        f"The commit {inert(commit)[:40]} of run {run.name!r} is in no git repository in {places}: run this command in "
        "a clone that has it."
    )


def _write_files(where: Path, files: dict[str, Any]) -> list[str]:
    """Write the recorded untracked files; a path that leaves the folder is left out."""
    written = []
    root = os.path.realpath(where)
    for name, content in files.items():
        path = where / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not isinstance(content, str):
            continue
        if not os.path.realpath(path).startswith(root + os.sep):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(name)
    return written


@dataclass
class _Data:
    """What git does not track and is no code, as it is today.

    Attributes:
        names: Files and folders at the top.
        linked: Those in them that are too large to be copied.
        room: Bytes that may still be copied.
        entries: Files and folders that may still be copied.
    """

    names: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    room: int = _MOST_COPIED
    entries: int = _MOST_ENTRIES


def _bring_data(original: Path, where: Path, data: _Data) -> None:
    """Copy what git does not track and is no code: it was not recorded. What is too large is linked."""
    listed = _git(original, "ls-files", "-z", "--others", "--directory", "--no-empty-directory")
    for name in filter(None, listed.split("\0")):
        bare = name.rstrip("/")
        source, target = original / bare, where / bare
        hidden = any(part.startswith(_HIDDEN) or part == "__pycache__" for part in Path(bare).parts)
        if hidden or bare.endswith(_CODE) or target.exists() or _holds(source, where) or not _is_data(source):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _bring(source, target, data, bare)
        data.names.append(name)


def _bring(source: Path, target: Path, data: _Data, name: str) -> None:
    """Copy a file or a folder, with its code and what is too large as links."""
    if source.is_dir() and not source.is_symlink():
        names = sorted(path.name for path in source.iterdir())
        if len(names) <= data.entries:
            data.entries -= len(names)
            target.mkdir()
            for inner in names:
                _bring(source / inner, target / inner, data, f"{name}/{inner}")
            return
    elif source.is_file() and not source.is_symlink() and not name.endswith(_CODE):
        size = source.stat().st_size
        if size <= data.room:
            data.room -= size
            shutil.copy2(source, target)
            return
    target.symlink_to(source)
    if not name.endswith(_CODE):
        data.linked.append(name)


def _holds(folder: Path, other: Path) -> bool:
    return os.path.realpath(other).startswith(os.path.realpath(folder) + os.sep)


def _is_data(path: Path) -> bool:
    """Return whether a path is a file, or a folder without code at its top."""
    return not path.is_dir() or not any(entry.name.endswith(_CODE) for entry in os.scandir(path))


def _facts(commit: str, diff: str, written: list[str], left_out: dict[str, Any], data: _Data) -> list[str]:
    parts = [f"commit {commit[:12]}" if commit else "no commit", *(["its changes"] if diff else [])]
    parts += [f"untracked {inert(listing(written))}"] if written else []
    facts = [f"code: {', '.join(parts)}"]
    if left_out:
        pairs = [f"{inert(name)} ({inert(reason)})" for name, reason in left_out.items()]
        facts.append(f"not recorded: {listing(pairs)}")
    if data.names:
        facts.append(f"not tracked by git, so as they are today: {inert(listing(data.names))}")
    if data.linked:
        facts.append(f"too large to be copied, so that the code may change them: {inert(listing(data.linked))}")
    return facts


def _git(folder: Path, *arguments: str, content: str | None = None) -> str:
    """Run git in a folder. Raises `ConfigError` with what it said when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            input=(content or "").encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"git {arguments[0]} failed: {error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise ConfigError(f"git {arguments[0]} said: {inert(said[-1])}")
    return done.stdout.decode("utf-8", "surrogateescape")
