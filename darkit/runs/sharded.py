"""Checkpoints that are folders: a file of each process's shards, under one manifest. Imports no torch.

``iter-<step>-ckpt/`` has ``shard-<rank>.pth`` of every process that holds a part of a tensor, ``index.json`` with the
place of every part, and ``state.pth`` with everything that is not split. The manifest ``iter-<step>-ckpt.json`` has
size and sha256 of each; its own ``sha256`` is that of the list of them. It is written last, so a folder without it is
not a checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from darkit.runs import files
from darkit.runs.safe import UnreadableError, open_regular

INDEX = "index.json"
STATE = "state.pth"
LONGEST_INDEX = 2**28  # bytes
MOST_PARTS = 2**22  # entries of an index and all of their parts: a thousand processes with four thousand tensors
_PART = re.compile(r"state\.pth|index\.json|shard-(0|[1-9][0-9]{0,6})\.pth")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE = 2**24  # bytes
Parts = Mapping[str, tuple[int, str]]
"""Size in bytes and sha256 of each file, by its name."""


def shard_name(rank: int) -> str:
    """Return the name of the file of a process."""
    return f"shard-{rank}.pth"


def make_manifest(parts: Parts, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a folder; ``facts`` are its further entries."""
    listed = {name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(parts.items())}
    return {"size": sum(size for size, _ in parts.values()), "sha256": _digest(parts), **facts, "files": listed}


def temporary_folder(folder: Path, token: str) -> Path:
    """Return the name under which a folder is written; `darkit.runs.files.remove_leftovers` knows it."""
    return folder.with_name(f".{folder.name}.tmp-{token}")


def describe_folder(folder: Path, manifest: Mapping[str, Any]) -> tuple[int, str]:
    """Return the size in bytes of the listed files, and why the folder cannot be trusted, or empty text."""
    parts, problem = _listed(manifest)
    if problem:
        return 0, problem
    total = 0
    for name, (size, _) in parts.items():
        try:
            found = (folder / name).lstat()
        except OSError:
            return total, f"its file {name} is missing"
        if not stat.S_ISREG(found.st_mode):
            return total, f"its file {name} is not a regular file"
        total += found.st_size
        if found.st_size != size:
            return total, f"its file {name} has {found.st_size} bytes where its manifest says {size}"
    return total, ""


def find_folder_damage(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Read all files and compare them with the manifest; return what differs, or empty text."""
    parts, problem = _listed(manifest)
    for name, (_, digest) in parts.items():
        try:
            if sha256_of(folder / name) != digest:
                return f"the sha256 of its file {name} is not the one in its manifest"
        except FileNotFoundError:
            return f"its file {name} is missing"
        except UnreadableError as error:
            return f"its file {name} cannot be read ({error.reason})"
    return problem


def list_shards(manifest: Mapping[str, Any], digest: str) -> list[str]:
    """Return the names of the files with parts of tensors that a manifest lists.

    Args:
        manifest: The manifest.
        digest: Its ``sha256`` when the files were compared with it.

    Raises:
        ValueError: It is another one now, or cannot be trusted.
    """
    parts, problem = _listed(manifest)
    if problem or manifest.get("sha256") != digest:
        raise ValueError(problem or "its manifest was replaced while it was read")
    return [name for name in parts if name not in (INDEX, STATE)]


def remove_folder(folder: Path) -> None:
    """Delete a folder: under a name that no reader takes for a checkpoint, so that it never looks incomplete.

    Raises:
        StorageError: The file system refused.
    """
    away = temporary_folder(folder, f"{os.getpid()}-{os.urandom(6).hex()}")
    with files.storage_errors(f"delete {folder}"), suppress(FileNotFoundError):
        folder.replace(away)
        shutil.rmtree(away)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a regular file.

    It is read in large pieces: a thread beside one that holds the interpreter's lock needs that lock once per piece.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableError: It is not a regular file.
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as descriptor, open(descriptor, "rb", buffering=0, closefd=False) as file:
        buffer = memoryview(bytearray(min(_PIECE, os.fstat(descriptor).st_size or 1)))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _listed(manifest: Mapping[str, Any]) -> tuple[dict[str, tuple[int, str]], str]:
    """Return the files that a manifest lists, or why it cannot be trusted."""
    if not manifest:
        return {}, "it has no manifest, so its save was not completed"
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        return {}, "its manifest does not list its files"
    parts: dict[str, tuple[int, str]] = {}
    for name, entry in listed.items():
        size, digest = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        if type(size) is int and isinstance(digest, str) and _SHA256.fullmatch(digest) and _PART.fullmatch(name):
            parts[name] = (size, digest)
        else:
            return {}, "its manifest lists files that no checkpoint has"
    if not {INDEX, STATE} <= parts.keys():
        return {}, f"its manifest does not list {INDEX} and {STATE}"
    if manifest.get("sha256") != _digest(parts):
        return {}, "the sha256 of its manifest is not that of the files that it lists"
    return parts, ""


def _digest(parts: Parts) -> str:
    text = "".join(f"{digest} {size} {name}\n" for name, (size, digest) in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()
