"""Deleted runs. A deletion moves the run to the home's trash, from where `restore` brings it back.

Each deletion has a folder of its own, ``.trash/<local time>-<count>/<name>``. Earlier versions had ``.trash/<name>``,
which is read too. A trash inside the root serves roots on another file system than the home.
A trash that is a link is refused: a home may have come from others, and what is deleted for good must lie in it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from darkit.errors import RunNotFoundError, StorageError, listing, nearest
from darkit.runs import files
from darkit.runs.ended import held
from darkit.runs.names import is_name, refuse_existing, run_path
from darkit.runs.rename import place, record_name

TRASH = ".trash"
_DELETION = re.compile(r"\d{8}-\d{6}-\d+")
_BEFORE = re.compile(r"(.+)-\d{8}-\d{6}-\d+")  # a second run of a name, in earlier versions
_ENDING = ".ending-"  # the prefix of what is being deleted for good
_FORM = "%Y%m%d-%H%M%S"


@dataclass(frozen=True)
class Deleted:
    """A run in the trash.

    Attributes:
        name: The name it had.
        deletion: Which deletion it was, such as ``20261124-153012-1``.
        time: When it was deleted, in Unix seconds.
        folder: Where it lies.
    """

    name: str
    deletion: str
    time: float
    folder: Path


def move_to_trash(root: Path, name: str) -> Path:
    """Move a run to the trash, and return where it lies now.

    Raises:
        NameInvalidError: It is not a name.
        RunNotFoundError: There is no such run.
        RunLockedError: It is being trained, here or, as its heartbeat says, on another host.
        StorageError: The file system refused.
    """
    folder = run_path(root, name)
    if not folder.is_dir():
        raise RunNotFoundError(f"There is no run {name!r} in {root}.")
    with held(folder):
        return move_held(folder)


def move_held(folder: Path) -> Path:
    """Move a run, whose lock the caller holds, to the trash, and return where it lies now. Raises `StorageError`."""
    root = folder.parent
    with files.storage_errors(f"move the run {folder.name!r} to the trash"):
        try:
            return _move(folder, root.parent / TRASH)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return _move(folder, root / TRASH)


def list_trash(root: Path) -> list[Deleted]:
    """Return the runs in the trash of a root, latest deletion first. Raises `StorageError` where a trash is a link."""
    found = [deleted for trash in trashes(root) for entry in _entries(trash) for deleted in _deleted(entry)]
    return sorted(found, key=lambda deleted: (deleted.time, deleted.deletion), reverse=True)


def restore(root: Path, name: str, *, new: str | None = None, deletion: str | None = None) -> Deleted:
    """Bring a run back from the trash, and return what it was.

    Args:
        root: Where the runs are.
        name: The name that it had.
        new: Its new name; by default the old one.
        deletion: Which deletion of that name; by default the latest.

    Raises:
        NameInvalidError: The new name is not a name.
        RunNotFoundError: The trash has no such run; the text lists what it has.
        RunExistsError: The name is taken.
        StorageError: The file system refused.
    """
    all_deleted = list_trash(root)
    versions = [deleted for deleted in all_deleted if deleted.name == name]
    if not versions:
        names = {deleted.name for deleted in all_deleted}
        raise RunNotFoundError(f"The trash has no run {name!r}. {nearest(name, names)}.")
    chosen = next((one for one in versions if deletion in (None, one.deletion)), None)
    if chosen is None:
        existing = listing([one.deletion for one in versions])
        raise RunNotFoundError(f"The run {name!r} has no deletion {deletion!r} in the trash. Available: {existing}.")
    wanted = name if new is None else new
    refuse_existing(root, wanted)
    with held(chosen.folder):
        target = place(chosen.folder, root, wanted)
        record_name(target)
    with suppress(OSError):  # of an earlier version, there is no such folder
        chosen.folder.parent.rmdir()
    return chosen


def delete_for_good(deleted: Iterable[Deleted]) -> None:
    """Delete runs of the trash for good.

    Each is first moved aside, so that no part of a run can be restored.

    Raises:
        StorageError: The file system refused, or the trash is a link.
    """
    for one in deleted:
        trash = one.folder.parent if one.folder.parent.name == TRASH else one.folder.parent.parent
        _refuse_link(trash)
        aside = trash / f"{_ENDING}{os.urandom(6).hex()}"
        with files.storage_errors(f"delete {one.folder}"):
            try:
                one.folder.rename(aside)
            except FileNotFoundError:  # restored, or deleted, by another command
                continue
            with suppress(OSError):
                one.folder.parent.rmdir()
            _remove_all(aside)


def remove_leftovers(root: Path) -> None:
    """Delete what an interrupted `delete_for_good` left. Raises `StorageError`."""
    for trash in trashes(root):
        for entry in _entries(trash):
            if entry.name.startswith(_ENDING):
                with files.storage_errors(f"delete {entry}"):
                    _remove_all(entry)


def trashes(root: Path) -> Sequence[Path]:
    """Return where deleted runs of a root can be."""
    return root.parent / TRASH, root / TRASH


def _move(folder: Path, trash: Path) -> Path:
    _refuse_link(trash)
    trash.mkdir(exist_ok=True)
    moment, count = time.strftime(_FORM), 0
    while True:
        count += 1
        room = trash / f"{moment}-{count}"
        with suppress(FileExistsError):
            room.mkdir()
            break
    try:
        target = folder.rename(room / folder.name)
    except OSError:
        with suppress(OSError):
            room.rmdir()
        raise
    for changed in (room, trash, folder.parent):
        files.sync_folder(changed)
    return target


def _deleted(entry: Path) -> list[Deleted]:
    """Return the runs of a folder in the trash."""
    inside = [folder for folder in _folders(entry) if is_name(folder.name)]
    if _DELETION.fullmatch(entry.name) and not (entry / files.RUN).exists():
        moment = _moment(entry.name.rpartition("-")[0])
        return [Deleted(folder.name, entry.name, moment, folder) for folder in inside]
    if not _is_file(entry / files.RUN):  # any other folder, which nobody deleted with darkit
        return []
    before = _BEFORE.fullmatch(entry.name)
    name = before[1] if before else entry.name
    return [Deleted(name, entry.name, entry.lstat().st_ctime, entry)] if is_name(name) else []


def _moment(text: str) -> float:
    try:
        return time.mktime(time.strptime(text, _FORM))
    except (ValueError, OverflowError):
        return 0.0


def _entries(trash: Path) -> list[Path]:
    """Return the folders in a trash. Raises `StorageError` where it is a link."""
    _refuse_link(trash)
    return _folders(trash)


def _refuse_link(trash: Path) -> None:
    try:
        mode = trash.lstat().st_mode
    except OSError:  # it does not exist yet, or cannot be read either
        return
    if not stat.S_ISDIR(mode):
        what = "a link, which is not followed" if stat.S_ISLNK(mode) else "not a folder"
        raise StorageError(errno.ENOTDIR, f"The trash {trash} is {what}. Move it away, then repeat the command.")


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove_all(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:  # another command deletes it too
        return
    except RecursionError as error:
        raise StorageError(errno.ELOOP, f"Cannot delete {folder}: its folders are nested too deep.") from error
