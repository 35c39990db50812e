"""Files and folders that a command writes for other programs: complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError, RunExistsError
from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_object

EXPORT = "darkit-export.json"
"""The file of an exported folder that says what it was made of; only a folder with it is replaced."""


@contextmanager
def fresh_output(output: Path, facts: Mapping[str, Any], *, replace: bool = False) -> Iterator[Path]:
    """Yield a path for the block to write a file or a folder at; then everything is synchronised and gets its name.

    After an error the block's work is deleted, and what was at ``output`` is unchanged.

    Args:
        output: The final path.
        facts: What the output is made of; written into an exported folder as ``darkit-export.json``.
        replace: Replace an existing file, or a folder that was exported before.

    Raises:
        RunExistsError: The output exists and is not replaced.
        ConfigError: Its parent folder does not exist, or what exists must not be replaced.
        StorageError: The file system failed.
    """
    output = output.resolve() if output.name in ("", "..") else output
    _check_replaceable(output, replace)
    if not output.parent.is_dir():
        raise ConfigError(f"The folder {output.parent} does not exist. Create it first.")
    room = output.parent.resolve() / f".darkit-export.tmp-{os.getpid()}-{os.urandom(6).hex()}"
    with files.storage_errors(f"write {output}"):
        room.mkdir()
        try:
            made = room / output.name
            yield made
            if made.is_dir():
                files.write_json(made / EXPORT, dict(facts))
            _sync(made)
            _put_in_place(made, output)
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _check_replaceable(output: Path, replace: bool) -> None:
    """Raise for an output that exists and must stay."""
    if not output.exists() and not output.is_symlink():
        return
    if not replace:
        raise RunExistsError(f"{output} already exists. Choose another --output, or --force.")
    if output.is_dir() and (output.is_symlink() or not _is_export(output)):
        raise ConfigError(
            f"{output} is a folder that darkit did not export, so --force does not replace it. Choose another --output."
        )


def _is_export(folder: Path) -> bool:
    """Return whether a folder is empty, or was exported before."""
    try:
        return bool(read_object(folder / EXPORT))
    except (FileNotFoundError, UnreadableError):
        return not any(folder.iterdir())


def _put_in_place(made: Path, output: Path) -> None:
    """Give a file or a folder its name. An existing folder is moved away first, and back if that fails."""
    if output.exists() and made.is_dir() != output.is_dir():
        raise ConfigError(f"{output} is a {'folder' if output.is_dir() else 'file'}. Choose another --output.")
    old = output.parent / f"{made.parent.name}.old"
    if output.is_dir():
        output.rename(old)
    try:
        os.replace(made, output)
    except OSError:
        if old.is_dir():
            old.rename(output)
        raise
    files.sync_folder(output.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(made: Path) -> None:
    """Make a file, or a folder with everything in it, durable."""
    if not made.is_dir():
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        return
    for folder, _, names in os.walk(made, topdown=False):
        for name in names:
            with Path(folder, name).open("rb+") as file:
                os.fsync(file.fileno())
        files.sync_folder(Path(folder))
