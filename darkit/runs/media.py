"""Media of a run: files below ``media/`` and the append-only index ``media/index.jsonl`` that names them.

Every line of the index is one JSON object with the fields of `Medium`. A file is named by the SHA-256 of its content:
equal content is stored once, and no name comes from a user's text. All content is untrusted when it is read: a line
that does not describe a medium is left out, and a file is only returned if its content has the recorded digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkit.errors import MediaError
from darkit.runs import files
from darkit.runs.safe import (
    UnreadableError,
    finite_number,
    is_strange,
    make_folder,
    open_for_writing,
    read_at,
    read_bytes,
)

INDEX = "index.jsonl"
TYPES: Mapping[str, tuple[str, ...]] = {
    "image": ("png", "jpg", "gif", "webp"),
    "audio": ("wav", "mp3", "ogg", "flac"),
    "text": ("txt",),
    "histogram": ("json",),
    "table": ("json",),
    "figure": ("json", "png"),
}
"""The kinds of media, and the endings that their files may have. A figure as JSON is one of plotly."""
LARGEST = 64 * 2**20  # bytes of one medium
LARGEST_RUN = 8 * 2**30  # bytes of all media of a run
MOST = 200_000  # media of a run
LONGEST_INDEX = 256 * 2**20  # bytes
LONGEST_KEY = 200  # characters
LONGEST_CAPTION = 10_000  # characters
_FILE = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{2,4}")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Medium:
    """One logged medium.

    Attributes:
        kind: A key of `TYPES`.
        key: The name it is logged under, such as ``samples/0``.
        step: The step it belongs to.
        file: The name of its file below ``media/``.
        sha256: The digest of the file's content, in hexadecimal.
        size: The size of the file in bytes.
        time: When it was logged, in Unix seconds.
        caption: Text shown with it.
    """

    kind: str
    key: str
    step: int
    file: str
    sha256: str
    size: int
    time: float
    caption: str = ""


class MediaStore:
    """Append media to a run. Not for use from several threads at once.

    Args:
        folder: The run directory.
        check: Called before each write; if it raises, nothing is written.

    Raises:
        StorageError: The folder or the index is a link, or the file system refused.
    """

    def __init__(self, folder: Path, *, check: Callable[[], None] = lambda: None) -> None:
        self._folder = folder / files.MEDIA
        self._check = check
        self._look()

    def _look(self) -> None:
        known = read_media(self._folder.parent)
        self._count = len(known)
        self._sizes = {medium.file: medium.size for medium in known}
        self._total = sum(self._sizes.values())

    def add(
        self, kind: str, key: str, step: int, data: bytes, ending: str, *, time: float, caption: str = ""
    ) -> Medium:
        """Store one medium: its file first, durably, then its line in the index.

        Args:
            kind: A key of `TYPES`.
            key: The name it is logged under: one line of 1 to 200 characters.
            step: The step it belongs to, at least 0.
            data: The content of the file.
            ending: The ending of the file's name, one of ``TYPES[kind]``.
            time: When it was logged, in Unix seconds.
            caption: Text shown with it, at most 10,000 characters.

        Raises:
            MediaError: A value does not fit, or the run would have too many or too large media; nothing was written.
            StorageError: The file system refused.
        """
        check_medium(kind, key, step, data, ending, caption)
        sha256 = hashlib.sha256(data).hexdigest()
        medium = Medium(kind, key, step, f"{sha256}.{ending}", sha256, len(data), time, caption)
        new = medium.file not in self._sizes
        if self._count >= MOST or (new and self._total + len(data) > LARGEST_RUN):
            raise MediaError(
                f"{key!r} of step {step} is not stored: the run has {self._count:,} media with {self._total:,} bytes, "
                f"and may have {MOST:,} with {LARGEST_RUN:,} bytes. Log media less often."
            )
        self._check()
        with files.storage_errors(f"write media below {self._folder}"):
            make_folder(self._folder)
        if new:
            files.write_bytes(self._folder / medium.file, data)
        self._append(json.dumps(asdict(medium), ensure_ascii=True) + "\n")
        self._count += 1
        if new:
            self._sizes[medium.file] = len(data)
            self._total += len(data)
        return medium

    def cut_after(self, step: int) -> None:
        """Drop the media of later steps, which a resumed run logs again, and the files that only they name."""
        run = self._folder.parent
        known = read_media(run)
        kept = [medium for medium in known if medium.step <= step]
        if len(kept) < len(known):
            lines = "".join(json.dumps(asdict(medium), ensure_ascii=True) + "\n" for medium in kept)
            files.write_bytes(self._folder / INDEX, lines.encode())
            for name in {medium.file for medium in known} - {medium.file for medium in kept}:
                files.remove(self._folder / name)
        self._look()

    def _append(self, line: str) -> None:
        path = self._folder / INDEX
        with files.storage_errors(f"write {path}"):
            descriptor = open_for_writing(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and read_at(descriptor, 1, size - 1) != b"\n"
                files.append_block(descriptor, (b"\n" if torn else b"") + line.encode())
            finally:
                os.close(descriptor)


def check_medium(kind: str, key: str, step: int, data: bytes, ending: str, caption: str = "") -> None:
    """Check the arguments of `MediaStore.add`. Raises `MediaError`."""
    if kind not in TYPES or ending not in TYPES[kind]:
        raise MediaError(f"A medium must be one of {', '.join(TYPES)} in a format of it, not {kind!r} ({ending!r}).")
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise MediaError(f"The key of a medium must be one line of 1 to {LONGEST_KEY} characters, not {key!r}.")
    if len(caption) > LONGEST_CAPTION:
        raise MediaError(f"The caption of {key!r} has {len(caption)} characters, more than {LONGEST_CAPTION}.")
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise MediaError(f"The step of {key!r} must be a whole number of at least 0, not {step!r}.")
    if len(data) > LARGEST:
        raise MediaError(f"{key!r} has {len(data):,} bytes; a medium may have {LARGEST:,}.")


def read_media(folder: Path) -> list[Medium]:
    """Return the media of a run in the order of their logging; lines that describe none are left out.

    Args:
        folder: The run directory.
    """
    if is_strange(folder / files.MEDIA):
        return []
    try:
        data = read_bytes(folder / files.MEDIA / INDEX, LONGEST_INDEX)
    except FileNotFoundError:
        return []
    except UnreadableError as error:
        logger.warning("Cannot read the media of %s: %s.", folder, error.reason)
        return []
    found = (_medium(line) for line in data.split(b"\n") if line)
    return [medium for medium in found if medium is not None]


def read_medium(folder: Path, medium: Medium) -> bytes:
    """Return the content of a medium's file.

    Raises:
        MediaError: The file is missing, is not a regular file, or has other content than was recorded.
    """
    path = folder / files.MEDIA / medium.file
    try:
        data = read_bytes(path, LARGEST)
    except (FileNotFoundError, UnreadableError) as error:
        raise MediaError(f"The file of {medium.key!r} of step {medium.step} cannot be read: {error}.") from error
    if hashlib.sha256(data).hexdigest() != medium.sha256:
        raise MediaError(f"The file of {medium.key!r} of step {medium.step} has changed since it was logged.")
    return data


def _medium(line: bytes) -> Medium | None:
    """Return the medium that a line of the index describes, or None."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    texts = [value.get(name, "") for name in ("kind", "key", "file", "sha256", "caption")]
    if not all(isinstance(text, str) for text in texts):
        return None
    kind, key, file, sha256, caption = texts
    step, size, time = (_whole(value.get("step")), _whole(value.get("size")), finite_number(value.get("time")))
    ending = file.rpartition(".")[2]
    if step is None or size is None or time is None or ending not in TYPES.get(kind, ()):
        return None
    if not _FILE.fullmatch(file) or not file.startswith(f"{sha256}.") or not 0 < len(key) <= LONGEST_KEY:
        return None
    return Medium(kind, key, step, file, sha256, size, time, caption[:LONGEST_CAPTION])


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
