"""What may be a run's name, and how a run and its checkpoint are referred to: the one place where names are checked."""

from __future__ import annotations

import re
import shlex
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

from darkit.errors import NameInvalidError, RunExistsError, StorageError
from darkit.runs import files

LONGEST_NAME = 100
_LONGEST_ENCODED = 240  # bytes; file systems take 255, and a suffix must fit
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})  # shown by a terminal as something else
_NOT_NAMES = ("true", "false", "null", "auto")  # what resume= does not take for a name
_UNSAFE = re.compile("[/\\\\:]")


def check_name(name: object) -> str:
    """Check that a name can be a folder directly below the root.

    Args:
        name: What the user gave.

    Returns:
        The same name.

    Raises:
        NameInvalidError: It is empty, longer than 100 characters or 240 bytes, starts with a dot, begins or ends with
            a space, or holds a slash, a colon or a character that cannot be seen.
    """
    if not isinstance(name, str):
        raise NameInvalidError(f"A run name must be text, not {type(name).__name__} {name!r}.")
    problem = _problem(name)
    if problem:
        shown = name if len(name) <= LONGEST_NAME else name[:40] + "..."
        raise NameInvalidError(
            f"The run name {shown!r} {problem}; a name is 1 to {LONGEST_NAME} characters without '/', '\\' or ':', and "
            "does not start with a dot."
        )
    return name


def check_project(project: object) -> str:
    """Check the name of a project, for which the rules of a run's name hold. Raises `NameInvalidError`."""
    if not isinstance(project, str):
        raise NameInvalidError(f"A project must be text, not {type(project).__name__} {project!r}.")
    problem = _problem(project)
    if problem:
        shown = project if len(project) <= LONGEST_NAME else project[:40] + "..."
        raise NameInvalidError(
            f"The project {shown!r} {problem}; a project is 1 to {LONGEST_NAME} characters without '/', '\\' or ':', "
            "and does not start with a dot."
        )
    return project


def is_name(name: str) -> bool:
    """Return whether this can be a run's name."""
    return not _problem(name)


def _problem(name: str) -> str:
    if not name:
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters"
    try:
        if len(name.encode()) > _LONGEST_ENCODED:
            return "is too long for a folder's name"
    except UnicodeEncodeError:
        return "is not valid text"
    if _UNSAFE.search(name):
        return "holds a character that a folder's name must not hold"
    plain = name.isascii() and name.isprintable()  # nearly all are, and a list checks thousands
    if not plain and any(unicodedata.category(character) in _UNSEEN for character in name):
        return "holds a character that cannot be seen"
    if name.startswith("."):
        return "starts with a dot"
    if name != name.strip():
        return "starts or ends with a space"
    return ""


def run_path(root: Path, name: object) -> Path:
    """Return the folder of the run with this name, whether it exists or not.

    Raises:
        NameInvalidError: The name is not one, or a symbolic link stands in its place.
    """
    path = root / check_name(name)
    if path.is_symlink():
        raise NameInvalidError(
            f"The run name {name!r} is a symbolic link in {root}; a run is a real folder: rename or remove the link."
        )
    return path


def fresh_name(model_name: str) -> str:
    """Make a readable name from a model's name and the local time, such as ``gpt-20261124-153012``."""
    stem = re.sub(r"[^a-z0-9_-]+", "-", model_name.lower())[:60].strip("-_") or "run"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def create_fresh(root: Path, model_name: str) -> Path:
    """Create the folder of a new run under an unused name, with ``-2``, ``-3``, ... after it where needed.

    Raises:
        StorageError: The root cannot be written to.
    """
    stem = fresh_name(model_name)
    path, count = root / stem, 1
    while True:
        try:
            path.mkdir(parents=True)
            files.sync_folder(root)
            return path
        except FileExistsError as error:
            if not root.is_dir():
                raise StorageError(f"The runs' root {root} is not a folder.") from error
            count += 1
            path = root / f"{stem}-{count}"
        except OSError as error:
            raise StorageError(f"Cannot create a run in {root}: {error.strerror}.") from error


def refuse_existing(root: Path, name: str) -> Path:
    """Return where a new run of this name goes. Raises `RunExistsError` when it is taken."""
    folder = run_path(root, name)
    if folder.exists():
        raise RunExistsError(f"A run {name!r} already exists in {root}. Choose another name, or resume it.")
    return folder


def create_named(root: Path, name: str) -> Path:
    """Create the folder of a new run.

    Raises:
        NameInvalidError: The name is not one.
        RunExistsError: It is taken.
        StorageError: The root cannot be written to.
    """
    folder = refuse_existing(root, name)
    try:
        folder.mkdir(parents=True)
        files.sync_folder(root)
    except FileExistsError as error:
        if root.is_dir():
            refuse_existing(root, name)
        raise StorageError(f"The runs' root {root} is not a folder.") from error
    except OSError as error:
        remove_unused(folder)
        raise StorageError(f"Cannot create the run {name!r} in {root}: {error.strerror}.") from error
    return folder


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that could not begin; where that fails, what is reported is why it could not."""
    with suppress(OSError):
        (folder / files.LOCK).unlink(missing_ok=True)
        folder.rmdir()


def resume_words(name: str) -> str:
    """Return the words with which ``darkit train`` resumes a run, as a shell takes them.

    A run may be called ``true`` or ``auto``, which ``resume=`` takes for something else.
    """
    quoted = shlex.quote(name)
    return f"name={quoted} resume=true" if name.lower() in _NOT_NAMES else f"resume={quoted}"


def split_reference(reference: object) -> tuple[str, str | None]:
    """Split ``NAME`` or ``NAME:CHECKPOINT``.

    Returns:
        The checked name, and the checkpoint's name or None.

    Raises:
        NameInvalidError: The part before the colon is not a name.
    """
    if isinstance(reference, str) and ":" in reference:
        name, _, checkpoint = reference.partition(":")
        return check_name(name), checkpoint or None
    return check_name(reference), None
