"""How many bytes runs take, by kind of file. Links are not followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from darkit.errors import StorageError
from darkit.runs import files

KINDS = ("checkpoints", "log", "tensorboard", "media", "rest")
_CHECKPOINT = re.compile(r"iter-\d+-ckpt(\.pth|\.json)?", re.ASCII)
_KIND_OF = {files.LOG: "log", files.SYSTEM_LOG: "log", files.CONSOLE: "log"} | {
    name: name for name in (files.TENSORBOARD, files.MEDIA)
}


@dataclass(frozen=True)
class Usage:
    """The size of a run directory in bytes.

    Attributes:
        folder: The run directory.
        kinds: Bytes for each of `KINDS`.
    """

    folder: Path
    kinds: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.kinds.values())


def measure(folder: Path) -> Usage:
    """Measure one run directory. What vanishes meanwhile, or must not be read, counts as nothing."""
    kinds = dict.fromkeys(KINDS, 0)
    for entry in _entries(folder):
        kind = "checkpoints" if _CHECKPOINT.fullmatch(entry.name) else _KIND_OF.get(entry.name, "rest")
        kinds[kind] += _size(entry)
    return Usage(folder, kinds)


def run_folders(root: Path) -> list[Path]:
    """Return every folder in a root that takes space as a run, whether it can be read as one or not.

    Raises:
        StorageError: The root exists and cannot be read.
    """
    try:
        with os.scandir(root) as entries:
            return [
                root / entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(error.errno, f"Cannot list the runs in {root}: {error.strerror}.") from error


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder and below it."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    if stat.S_ISDIR(found.st_mode):
        return sum(_size(entry) for entry in _entries(path))
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _size(entry: os.DirEntry[str]) -> int:
    """Add up without recursion: a stranger's folders may be nested deeper than the stack."""
    total, pending = 0, [entry]
    while pending:
        one = pending.pop()
        try:
            if one.is_dir(follow_symlinks=False):
                pending.extend(_entries(Path(one.path)))
            elif one.is_file(follow_symlinks=False):
                total += one.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return
