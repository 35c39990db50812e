"""Deleting a run: it moves to the home's trash, where a person can take it back from."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from darkit.errors import RunLockedError, RunNotFoundError
from darkit.runs import files
from darkit.runs.lock import RunLock
from darkit.runs.names import run_path
from darkit.runs.safe import UnreadableError, read_object
from darkit.runs.status import ALIVE

TRASH = ".trash"
_SILENCE = 60.0  # seconds without a heartbeat after which a run on another host counts as ended


def move_to_trash(root: Path, name: str) -> Path:
    """Move a run into ``.trash`` beside the root, and return where it lies now.

    Raises:
        NameInvalidError: It is not a name.
        RunNotFoundError: There is no such run.
        RunLockedError: It is being trained, here or, as its heartbeat says, on another host.
        StorageError: The file system refused.
    """
    folder = run_path(root, name)
    if not folder.is_dir():
        raise RunNotFoundError(f"There is no run {name!r} in {root}.")
    _refuse_beating(folder)
    lock = RunLock(folder)  # held during the move, so that no training starts in between
    try:
        with files.storage_errors(f"move the run {name!r} to the trash"):
            trash = root.parent / TRASH
            trash.mkdir(exist_ok=True)
            target, count = trash / name, 1
            while target.exists():
                count += 1
                target = trash / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{count}"
            folder.rename(target)
    finally:
        lock.release()
    return target


def _refuse_beating(folder: Path) -> None:
    try:
        status = read_object(folder / files.STATUS)
    except (FileNotFoundError, UnreadableError):  # a broken status does not protect a run from its owner
        return
    beat = status.get("heartbeat")
    elsewhere = status.get("state") in ALIVE and status.get("host") != socket.gethostname()
    if elsewhere and isinstance(beat, int | float) and abs(time.time() - beat) < _SILENCE:
        raise RunLockedError(f"The run {folder.name!r} is being trained on {status.get('host')!r}; stop it first.")
