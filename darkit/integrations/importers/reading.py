"""Files of a source: opened without following links, bounded, and never written."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from darkit.errors import SourceError
from darkit.runs.configs import plain
from darkit.runs.safe import DEEPEST, UnreadableError, is_too_deep, open_regular

LONGEST_YAML = 2**19  # bytes; the safe reader of YAML needs seconds for more
LONGEST_DOCUMENT = 64 * 2**20  # bytes of a file that is read whole
_BLOCK = 2**20
_MOST_NODES = 100_000  # values of a document; aliases in YAML multiply them


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading.

    Raises:
        SourceError: It is missing, is a link, or the file system refused.
    """
    try:
        with open_regular(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist.") from error
    except UnreadableError as error:
        raise SourceError(f"Cannot read {path}: {error.reason}.") from error
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.") from error


def digest_files(folder: Path, names: Sequence[str]) -> tuple[str, int]:
    """Return the SHA-256 of files with their names, and their size in bytes. Raises `SourceError`."""
    digest, total = hashlib.sha256(), 0
    for name in sorted(names):
        with opened(folder / name) as file:
            content, size = hashlib.sha256(), 0
            while block := file.read(_BLOCK):
                content.update(block)
                size += len(block)
        digest.update(f"{name}\0{size}\0{content.hexdigest()}\n".encode("utf-8", "surrogateescape"))
        total += size
    return digest.hexdigest(), total


def is_file(path: Path) -> bool:
    """Return whether this is a regular file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def modified(folder: Path, names: Sequence[str], *, first: bool = False) -> float:
    """Return when the last of some files was changed, or the first, in Unix seconds; 0 if none exists."""
    times = []
    for name in names:
        with suppress(OSError):
            times.append((folder / name).lstat().st_mtime)
    return (min if first else max)(times, default=0.0)


def read_document(path: Path, limit: int = LONGEST_DOCUMENT) -> bytes:
    """Read a whole file. Raises `SourceError` when it is longer than ``limit`` bytes or cannot be read."""
    with opened(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SourceError(f"Cannot read {path}: it has more than {limit:,} bytes.")
    return data


def read_json(path: Path, limit: int = LONGEST_DOCUMENT) -> dict[str, Any]:
    """Read a JSON object. Raises `SourceError`."""
    value = parse_json(read_document(path, limit))
    if not isinstance(value, dict):
        raise SourceError(f"{path} is not a whole JSON object.")
    return value


def parse_json(data: bytes | str) -> Any:
    """Return a value from JSON, or None if it is invalid or too deep; NaN and infinities are numbers."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return None if is_too_deep(value) else value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as plain values: of a tag that names a class, only the values below it are taken.

    Raises:
        SourceError: It is not such a file, too long, or too large when its aliases are resolved.
    """
    import yaml  # type: ignore[import-untyped]

    data = read_document(path, LONGEST_YAML)
    try:
        value = yaml.load(data, Loader=_loader())  # noqa: S506 - a safe loader
        _check_size(value)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise SourceError(f"{path} is not valid YAML, or too large.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SourceError(f"{path} is not a YAML mapping.")
    settings: dict[str, Any] = plain(value)
    return settings


def _loader() -> Any:
    import yaml

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader; tags of classes are ignored, and merge keys, which can multiply content, are plain keys."""

        def flatten_mapping(self, node: Any) -> None:
            """Leave ``<<`` as it is."""

    def build(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return str(node.value) or suffix.rpartition(":")[2]  # of a class or a function, its name

    Plain.add_multi_constructor("", build)
    return Plain


def _check_size(value: Any) -> None:
    """Raise `ValueError` for a value that is too large or too deep to be written as JSON."""
    left = [(value, 0)]
    count = 0
    while left:
        one, depth = left.pop()
        count += 1
        if count > _MOST_NODES or depth > DEEPEST:
            raise ValueError
        if isinstance(one, dict):
            left.extend((item, depth + 1) for item in one.values())
        elif isinstance(one, list | tuple | set):
            left.extend((item, depth + 1) for item in one)
