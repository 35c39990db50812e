"""Renaming a run. Its folder's name is the truth; ``run.json`` and ``trainer_config.json`` repeat it for people."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from darkit.errors import ConfigError, RunExistsError, RunNotFoundError, StorageError
from darkit.runs import files
from darkit.runs.ended import held
from darkit.runs.names import check_name, refuse_existing, run_path
from darkit.runs.safe import UnreadableError, read_object
from darkit.runs.sweeps import SWEEPS, sweep_of


def rename_run(root: Path, name: str, new: str) -> Path:
    """Give a run another name, and return its folder.

    Nothing else names a run: seals bind the content of ``config.yaml`` and the path of a script, checkpoints the run's
    id, and a resume goes by the folder.

    Raises:
        NameInvalidError: One of the two is not a name.
        RunNotFoundError: There is no such run.
        RunExistsError: The new name is taken.
        ConfigError: The run belongs to a sweep.
        RunLockedError: The run is being trained.
        StorageError: The file system refused.
    """
    folder = run_path(root, name)
    if not folder.is_dir():
        raise RunNotFoundError(f"There is no run {name!r} in {root}.")
    refuse_existing(root, new)
    if sweep := sweep_of(folder):
        raise ConfigError(
            f"The run {name!r} belongs to the sweep {sweep!r}, which finds it by its name. Remove the folder "
            f"{root.parent / SWEEPS / sweep} first, if the sweep is not to be continued."
        )
    with held(folder):
        target = place(folder, root, new)
        record_name(target)
    return target


def place(folder: Path, root: Path, name: str) -> Path:
    """Move a folder into a root as the run of this name, unless the name is taken.

    A rename alone would replace an empty folder, which may be a run that starts. The empty folder that is replaced here
    is one's own.

    Raises:
        NameInvalidError: It is not a name.
        RunExistsError: The name is taken.
        StorageError: The file system refused.
    """
    target = run_path(root, check_name(name))
    with files.storage_errors(f"move {folder} to {target}"):
        try:
            target.mkdir()
        except FileExistsError as error:
            raise RunExistsError(f"A run {name!r} already exists in {root}. Choose another name.") from error
        try:
            folder.rename(target)
        except OSError as error:
            with suppress(OSError):
                target.rmdir()
            if error.errno == errno.EXDEV:
                reason = f"Cannot move {folder} to {target}: they are on different file systems."
                raise StorageError(error.errno, reason) from error
            raise
        files.sync_folder(root)
    return target


def record_name(folder: Path) -> None:
    """Write the folder's name where the run's own files repeat it. What is not readable stays as it is.

    Raises:
        StorageError: The file system refused.
    """
    for path in (folder / files.RUN, folder / files.TRAINER_CONFIG):
        try:
            values = read_object(path)
        except (FileNotFoundError, UnreadableError):
            continue
        if values.get("name") not in (None, folder.name):
            files.write_json(path, {**values, "name": folder.name})
