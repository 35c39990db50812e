"""Which logs are below a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from darkit.errors import SourceError
from darkit.integrations.importers import (
    lightning,
    mlflow_files,
    mlflow_sqlite,
    tensorboard,
    trackio,
    transformers,
    wandb,
)
from darkit.integrations.importers.imported import Folder, Source
from darkit.runs import files

MOST_FOLDERS = 200_000
DEEPEST = 40
_SKIPPED = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".cache", ".trash"}
_READERS: tuple[Callable[[Folder], list[Source]], ...] = (
    *(wandb.find, mlflow_files.find, mlflow_sqlite.find, trackio.find, transformers.find, lightning.find),
    tensorboard.find,
)
_AIM = ".aim"
KINDS = (
    "TensorBoard event folders, W&B runs, MLflow stores, Lightning's logs, transformers' trainer_state.json and "
    "trackio's databases"
)


@dataclass
class Found:
    """What was found below a path.

    Attributes:
        sources: The runs, in the order of their paths.
        remarks: What was found and is not imported, one sentence each.
    """

    sources: list[Source] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def find_sources(path: Path) -> Found:
    """Look for logs in a file or a folder and all folders below it, without following links.

    Args:
        path: What the user gave; it may be a link itself.

    Raises:
        SourceError: It does not exist or cannot be read, or nothing below it is recognised.
    """
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{path} does not exist, or cannot be read.") from error
    found = Found()
    if stat.S_ISREG(mode):
        _look_at_file(real, found)
    elif stat.S_ISDIR(mode):
        _walk(real, real.parent, found)
    else:
        raise SourceError(f"{path} is neither a file nor a folder.")
    if not found.sources and not found.remarks:
        raise SourceError(f"Nothing below {path} is recognised. darkit imports {KINDS}.")
    return found


def _look_at_file(path: Path, found: Found) -> None:
    """Look at one file, and at those beside it if its log is a whole folder, such as one of event files."""
    _look(Folder(path.parent, path.parent.parent, [path.name], []), found)
    beside = _read_folder(path.parent, path.parent.parent)
    if beside is not None and any(source.path == path.parent for source in found.sources):
        beside.folders = []
        whole = Found()
        _look(beside, whole)
        found.sources = [source for source in whole.sources if source.path == path.parent]


def _walk(top: Path, base: Path, found: Found) -> None:
    left = [(top, 0)]
    seen = 0
    while left:
        path, depth = left.pop()
        seen += 1
        if seen > MOST_FOLDERS:
            found.remarks.append(f"Only the first {MOST_FOLDERS:,} folders below {top} were looked into.")
            return
        folder = _read_folder(path, base)
        if folder is None:
            found.remarks.append(f"{path} cannot be read.")
            continue
        if {files.RUN, files.LOG} <= set(folder.files):
            found.remarks.append(f"{path} is a run of darkit already; copy it into the folder of your runs.")
            continue
        _look(folder, found)
        if depth < DEEPEST:
            left.extend((path / name, depth + 1) for name in sorted(folder.folders, reverse=True))


def _read_folder(path: Path, base: Path) -> Folder | None:
    folder = Folder(path, base, [], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    folder.files.append(entry.name)
                elif entry.is_dir(follow_symlinks=False) and entry.name not in _SKIPPED:
                    folder.folders.append(entry.name)
    except OSError:
        return None
    folder.files.sort()
    folder.folders.sort()
    return folder


def _look(folder: Folder, found: Found) -> None:
    if _AIM in (folder.path.name, *folder.folders):
        folder.remarks.append(
            f"{folder.path} is a repository of Aim, whose database only Aim can read; darkit does not import it."
        )
        folder.folders = [name for name in folder.folders if name != _AIM] if folder.path.name != _AIM else []
    for reader in _READERS:
        found.sources.extend(reader(folder))
    found.remarks.extend(folder.remarks)
