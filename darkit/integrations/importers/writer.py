"""From a source to a run directory: made beside and renamed when it is whole, later only added to."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.errors import RunExistsError, RunLockedError
from darkit.integrations.importers.content import LONGEST_SENTENCE, write_content
from darkit.integrations.importers.imported import Imported, Source
from darkit.integrations.importers.known import ORIGIN, KnownRuns
from darkit.integrations.importers.names import free_name, valid_name
from darkit.runs import files
from darkit.runs.configs import plain
from darkit.runs.lock import RunLock
from darkit.runs.names import create_named, remove_unused
from darkit.runs.notes import LONGEST_NOTE, LONGEST_TAG, MOST_TAGS, Notes, read_notes, write_notes
from darkit.runs.run import Run
from darkit.runs.safe import make_folder

IMPORTED, UPDATED, UNCHANGED, EMPTY = "imported", "updated", "unchanged", "empty"
_MOST_PROBLEMS = 50


@dataclass(frozen=True)
class Outcome:
    """What has become of a source.

    Attributes:
        name: The run's name.
        action: `IMPORTED`, `UPDATED`, `UNCHANGED`, or `EMPTY` for a source without anything that a run keeps.
        rows: Rows of the log.
        new_rows: How many of them are new.
        media: Media that were added.
        state: The run's state.
        problems: What could not be read or kept, one sentence each.
    """

    name: str
    action: str
    rows: int = 0
    new_rows: int = 0
    media: int = 0
    state: str = ""
    problems: tuple[str, ...] = ()


def import_source(
    source: Source, root: Path, known: KnownRuns, *, name: str = "", tags: Sequence[str] = (), dry_run: bool = False
) -> Outcome:
    """Make a source a run, or add to the run that it has become before.

    Args:
        source: The source. It is only read.
        root: Where the runs are.
        known: The runs that were imported before; the new one is added.
        name: The name of a new run; by default the source's.
        tags: Tags that the run gets beside those of the source.
        dry_run: Whether to read everything and write nothing.

    Raises:
        SourceError: Nothing of it can be read.
        RunLockedError: Another process is importing it.
        StorageError: The file system refused.
    """
    digest, size = source.digest()
    found = known.find(source, digest)
    if found and found[1]:
        if not dry_run:
            _add_words(found[0].path, tags)
        return Outcome(found[0].name, UNCHANGED, state=found[0].status)
    imported = source.read()
    if not (len(imported.rows) or imported.config or any(True for _ in imported.media())):
        return Outcome(source.name, EMPTY, problems=_problems(imported))
    if dry_run:
        wanted = found[0].name if found else free_name(root, valid_name(name or source.name))
        action, before = (UPDATED, found[0].log().height) if found else (IMPORTED, 0)
        return _outcome(wanted, action, imported, before, sum(1 for _ in imported.media()))
    origin = plain(imported.facts) | {
        "kind": source.kind,
        "path": str(source.path),
        "identity": source.identity,
        "digest": digest,
        "size": size,
        "imported_at": time.time(),
    }
    outcome = _update(found[0], imported, origin) if found else _create(root, name or source.name, imported, origin)
    run = Run(root / outcome.name)
    if not found:
        source_tags = [tag.strip()[:LONGEST_TAG] for tag in imported.tags][: MOST_TAGS - len(tags)]
        _add_words(run.path, source_tags, imported.note[:LONGEST_NOTE])
    _add_words(run.path, tags)
    known.add(run)
    return outcome


def _create(root: Path, wanted: str, imported: Imported, origin: dict[str, Any]) -> Outcome:
    with _beside(root, origin) as folder:
        media = write_content(folder, imported)
        target = _reserve(root, valid_name(wanted))
        try:
            files.write_json(folder / files.RUN, _facts(imported, origin, target.name))
            with files.storage_errors(f"create the run {target}"):
                os.rename(folder, target)  # noqa: PTH104 - replaces the empty folder that holds the name
                files.sync_folder(root)
        except BaseException:
            remove_unused(target)
            raise
    return _outcome(target.name, IMPORTED, imported, 0, media)


def _update(run: Run, imported: Imported, origin: dict[str, Any]) -> Outcome:
    lock = RunLock(run.path)
    try:
        files.refuse_linked_run(run.path)
        files.remove_leftovers(run.path)
        before, info = run.log().height, run.info
        media = write_content(run.path, imported)
        old = info[ORIGIN]
        origin["first_imported_at"] = old.get("first_imported_at", old.get("imported_at"))
        facts = _facts(imported, origin, run.name)
        files.write_json(run.path / files.RUN, info | facts | {"id": info.get("id", facts["id"])})
    finally:
        lock.release()
    return _outcome(run.name, UPDATED, imported, before, media)


def _reserve(root: Path, wanted: str) -> Path:
    """Create the empty folder of a run under this name, or under one with a number."""
    while True:
        with suppress(RunExistsError):  # another process was faster
            return create_named(root, free_name(root, wanted))


@contextmanager
def _beside(root: Path, origin: Mapping[str, Any]) -> Iterator[Path]:
    """Make a locked folder that no reader takes for a run; remove it at the end, unless it has been renamed."""
    folder = root / f".importing-{_digest(origin)[:16]}"
    with files.storage_errors(f"create a run in {root}"):
        root.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
    try:
        lock = RunLock(folder)
    except RunLockedError as error:
        raise RunLockedError(f"Another process is importing {origin['path']}. Wait until it ends.") from error
    try:
        with files.storage_errors(f"remove what an interrupted import left in {folder}"):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != files.LOCK:
                    path.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _digest(origin: Mapping[str, Any]) -> str:
    place = "\0".join((origin["kind"], origin["path"], origin["identity"]))
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()


def _facts(imported: Imported, origin: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "id": _digest(origin)[:32],
        "name": name,
        "created": imported.started or origin["imported_at"],
        "model": {},
        "series": imported.rows.series(imported.axes),
        "data": {},
        **plain(imported.provenance),
        ORIGIN: origin | {"problems": list(_problems(imported))},
    }


def _problems(imported: Imported) -> tuple[str, ...]:
    said = dict.fromkeys([*imported.rows.problems(), *imported.problems])
    return tuple(problem[:LONGEST_SENTENCE] for problem in said)[:_MOST_PROBLEMS]


def _outcome(name: str, action: str, imported: Imported, before: int, media: int) -> Outcome:
    rows = len(imported.rows)
    return Outcome(name, action, rows, max(0, rows - before), media, imported.state, _problems(imported))


def _add_words(folder: Path, tags: Sequence[str], note: str = "") -> None:
    """Add tags, and a note to a run without one; writes nothing if there is nothing new."""
    there = read_notes(folder)
    new = [tag for tag in dict.fromkeys(" ".join(tag.split()) for tag in tags) if tag and tag not in there.tags]
    if new or (note and not there.note):
        write_notes(folder, Notes((*there.tags, *new), there.note or note, there.archived))
