"""Runs as one ZIP file to take away: their logs and small files, without checkpoints."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from darkit.dashboard.reading.facts import Facts, readable
from darkit.runs import files
from darkit.runs.safe import UnreadableError, open_regular

_CONFIGS = (files.MODEL_CONFIG, files.TRAINER_CONFIG, files.COMPOSED_CONFIG)
_TAKEN = (files.LOG, files.SYSTEM_LOG, files.RUN, *_CONFIGS, files.STATUS, files.NOTES)
LEFT_OUT = "left_out.txt"
"""The file that names what could not be read, with the reasons; it is there only then."""
_IN_MEMORY = 16 * 2**20  # bytes; what is longer goes to a temporary file
_PIECE = 2**18  # bytes
_MOMENT = (1980, 1, 1, 0, 0, 0)  # of every file


def bundle(all_facts: Sequence[Facts]) -> Iterator[bytes]:
    """Return the pieces of a ZIP file with a folder for each run, of the files that it has; see also `LEFT_OUT`."""
    problems = []
    target = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed when the last piece is read
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for facts in all_facts:
            for name in _TAKEN:
                try:
                    _add(archive, facts.folder / name, f"{facts.name}/{name}")
                except FileNotFoundError:
                    continue
                except UnreadableError as error:
                    problems.append(f"{facts.name}/{name}: {error.reason}\n")
        if problems:
            archive.writestr(zipfile.ZipInfo(LEFT_OUT, _MOMENT), readable("".join(problems)))
    target.seek(0)
    pieces = _pieces(target)
    weakref.finalize(pieces, target.close)  # where whoever asked went away before the first one
    return pieces


def _pieces(file: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    with (
        open_regular(path) as descriptor,
        os.fdopen(os.dup(descriptor), "rb") as source,
        archive.open(zipfile.ZipInfo(name, _MOMENT), "w", force_zip64=True) as written,
    ):
        shutil.copyfileobj(source, written, _PIECE)
