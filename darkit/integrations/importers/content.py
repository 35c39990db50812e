"""The files of an imported run: log, system log, media, config and status."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from darkit.errors import MediaError
from darkit.integrations.importers.imported import Imported, ImportedMedium
from darkit.integrations.importers.rows import column_name, format_rows
from darkit.runs import files
from darkit.runs.configs import plain
from darkit.runs.media import LONGEST_CAPTION, MediaStore, read_media
from darkit.runs.records import format_header
from darkit.runs.safe import UnreadableError, finite_number, open_for_writing, open_regular
from darkit.runs.status import Status

LONGEST_CONFIG = 4 * 2**20  # characters
LONGEST_CONSOLE = 4 * 2**20  # characters
LONGEST_SENTENCE = 2_000  # characters
_LONGEST_TRACEBACK = 20_000  # characters


def write_content(folder: Path, imported: Imported) -> int:
    """Write everything but ``run.json``; of a run that exists, only what is new.

    Returns:
        How many media were added.

    Raises:
        StorageError: The file system refused.
    """
    _write_log(folder / files.LOG, imported.rows.blocks)
    added = _write_media(folder, imported)
    config = plain(imported.config)
    if len(json.dumps(config)) > LONGEST_CONFIG:
        imported.problems.append(f"The config was left out: it has more than {LONGEST_CONFIG:,} characters.")
        config = {}
    files.write_json(folder / files.MODEL_CONFIG, config)
    if imported.packages:
        files.write_json(folder / files.ENVIRONMENT, {"packages": dict(imported.packages), "files": {}, "left_out": {}})
    if imported.console:
        files.write_text(folder / files.CONSOLE, imported.console[-LONGEST_CONSOLE:])
    if imported.system:
        _write_system(folder / files.SYSTEM_LOG, imported.system)
    files.write_json(folder / files.STATUS, asdict(_status(imported)))
    return added


def _status(imported: Imported) -> Status:
    return Status(
        state=imported.state,
        step=max(imported.rows.last_step, imported.last_step),
        max_step=imported.max_step,
        started=imported.started,
        heartbeat=imported.ended,
        reason=imported.reason[:LONGEST_SENTENCE],
        traceback=imported.traceback[-_LONGEST_TRACEBACK:],
    )


def _write_log(path: Path, blocks: Callable[[], Iterable[bytes]]) -> None:
    """Write a log: append to one that the new one begins with, else replace it."""
    try:
        appended = path.exists() and _append_rest(path, blocks())
    except UnreadableError:
        appended = False
    if not appended:
        with files.open_atomically(path) as file:
            file.writelines(blocks())


def _append_rest(path: Path, blocks: Iterable[bytes]) -> bool:
    """Append what a file lacks of some content; return False, and write nothing, if it has another one."""
    with files.storage_errors(f"write the log {path}"), open_regular(path) as descriptor:
        appended = open_for_writing(path, os.O_WRONLY | os.O_APPEND)
        try:
            left = os.fstat(descriptor).st_size
            for block in blocks:
                there = os.read(descriptor, min(len(block), left))
                left -= len(there)
                if not block.startswith(there):
                    return False
                if len(there) < len(block):
                    files.append_block(appended, block[len(there) :])
            os.fsync(appended)
        finally:
            os.close(appended)
    return not left


def _write_system(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = {key: column_name(key) for key in dict.fromkeys(key for row in rows for key in row)}
    columns = list(dict.fromkeys(["time", "step", *names.values()]))
    renamed = ({names[key]: value for key, value in row.items()} for row in rows)
    files.write_bytes(path, format_header(columns).encode() + b"".join(format_rows(renamed, columns)))


def _write_media(folder: Path, imported: Imported) -> int:
    """Add the media that the run does not have; return how many."""
    store = MediaStore(folder)
    there = Counter((one.kind, one.key, one.step, one.time, one.caption, one.sha256) for one in read_media(folder))
    added, refused = _add_new(store, imported.media(), there)
    if +there:  # the source has dropped some
        store.cut_after(-1)
        added, refused = _add_new(store, imported.media(), Counter())
    if refused:
        imported.problems.append(f"{len(refused):,} media were left out; the first: {refused[0]}")
    return added


def _add_new(store: MediaStore, media: Iterable[ImportedMedium], there: Counter[Any]) -> tuple[int, list[str]]:
    """Add the media that are not there and take the others out of `there`; return how many, and what was refused."""
    added, refused = 0, []
    for one in media:
        caption, time = one.caption[:LONGEST_CAPTION], finite_number(one.time) or 0.0
        key = (one.kind, one.key, one.step, time, caption, hashlib.sha256(one.data).hexdigest())
        if there[key] > 0:
            there[key] -= 1
            continue
        if not one.ending:
            refused.append(f"{one.key!r} of step {one.step} has an unknown format.")
            continue
        try:
            store.add(one.kind, one.key, one.step, one.data, one.ending, time=time, caption=caption)
            added += 1
        except MediaError as error:
            refused.append(str(error))
    return added, refused
