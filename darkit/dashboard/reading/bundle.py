"""Runs as one ZIP file to take away: their logs and small files, without checkpoints."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from darkit.dashboard.reading.facts import Facts
from darkit.runs import files
from darkit.runs.safe import UnreadableError, open_regular

_TAKEN = (files.LOG, files.RUN, files.MODEL_CONFIG, files.TRAINER_CONFIG, files.STATUS, files.NOTES)
_IN_MEMORY = 16 * 2**20  # bytes; what is longer goes to a temporary file
_PIECE = 2**18  # bytes


def bundle(all_facts: Sequence[Facts]) -> Iterator[bytes]:
    """Return the pieces of a ZIP file with a folder for each run. What is missing or not readable is left out."""
    target = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed when the last piece is read
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for facts in all_facts:
            for name in _TAKEN:
                _add(archive, facts.folder / name, f"{facts.name}/{name}")
    target.seek(0)
    return _pieces(target)


def _pieces(file: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    with (
        suppress(FileNotFoundError, UnreadableError),
        open_regular(path) as descriptor,
        os.fdopen(os.dup(descriptor), "rb") as source,
        archive.open(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as written,
    ):
        shutil.copyfileobj(source, written, _PIECE)
