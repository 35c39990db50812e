"""Notes on a run: tags, a text, whether it is archived, its project, and its evaluations.

`notes.json` is read and written here only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError, NotesChangedError
from darkit.runs import files
from darkit.runs.lock import one_writer
from darkit.runs.names import check_project, is_name
from darkit.runs.safe import UnreadableError, read_object

LONGEST_TAG = 60  # characters
MOST_TAGS = 30
LONGEST_NOTE = 20_000  # characters
MOST_EVALUATIONS = 200
MOST_COLOURS = 64
OWN_DATA = "the run's own data"  # what an evaluation on that is called
_LONGEST_FILE = 2**20  # bytes
_LARGEST = 1e300  # a whole number in JSON may be larger than a float holds
_LONGEST_WORD = 500  # characters of what an evaluation is called


@dataclass(frozen=True)
class Evaluation:
    """How good a run's model was on some data.

    Attributes:
        time: When it was evaluated, in seconds since 1970.
        data: What it was evaluated on.
        checkpoint: Which checkpoint it was.
        metrics: What was measured: name -> value.
    """

    time: float
    data: str
    checkpoint: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Notes:
    """A person's words about a run.

    Attributes:
        tags: Short words to group and filter by, each at most 60 characters.
        note: Free text of at most 20,000 characters.
        archived: Whether the run is put away: kept, but not shown by default.
        evaluations: How it was evaluated after its training, the newest last.
        project: The project that a person moved it to, empty for none; None if it was not moved (`project_of`).
        colour: The place of the colour of its curves that a person chose; None if nobody did.
        problem: Why the file cannot be read, or empty; it is not written.
        revision: How often the words were changed until they were read; None for words that were not read.
    """

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False
    evaluations: tuple[Evaluation, ...] = ()
    project: str | None = field(default=None, compare=False)
    colour: int | None = None
    problem: str = ""
    revision: int | None = field(default=None, compare=False)


def read_notes(folder: Path) -> Notes:
    """Read a run's notes; what is missing or has another form than it should counts as empty."""
    try:
        values = read_object(folder / files.NOTES, _LONGEST_FILE)
    except FileNotFoundError:
        return Notes(revision=0)
    except (OSError, UnreadableError) as error:
        return Notes(problem=str(error))
    tags, note, revision = values.get("tags"), values.get("note"), values.get("revision")
    project, colour = values.get("project"), values.get("colour")
    return Notes(
        tags=_clean_tags(tags) if isinstance(tags, list) else (),
        note=note[:LONGEST_NOTE] if isinstance(note, str) else "",
        archived=values.get("archived") is True,
        evaluations=_read_evaluations(values.get("evaluations")),
        project=project if isinstance(project, str) and (not project or is_name(project)) else None,
        colour=colour if type(colour) is int and 0 <= colour < MOST_COLOURS else None,
        revision=revision if type(revision) is int and revision >= 0 else 0,
    )


def write_notes(folder: Path, notes: Notes) -> Notes:
    """Write a person's words about a run in place of those there; its evaluations stay as they are.

    Args:
        folder: The run directory.
        notes: The words. If they have a revision it must be the one there.

    Returns:
        What was written: tags without doubles and without spaces around them.

    Raises:
        NotesChangedError: The words were changed since `notes` were read; `merge_notes` keeps both changes.
        ConfigError: A tag or the note is too long, there are too many tags, or what is there cannot be read and would
            be lost.
        StorageError: The file system refused.
    """

    def replaced(there: Notes) -> Notes:
        if notes.revision not in (None, there.revision):
            raise NotesChangedError(f"The notes of {folder.name!r} were changed since they were read; read them again.")
        return notes

    return _change(folder, replaced)


def merge_notes(folder: Path, before: Notes, after: Notes) -> Notes:
    """Apply the changes from `before` to `after` to a run's notes, keeping those that others made meanwhile.

    Args:
        folder: The run directory.
        before: The words as they were shown.
        after: The words as they should be.

    Returns:
        What was written.

    Raises:
        NotesChangedError: The note was changed both here and elsewhere.
        ConfigError: As `write_notes`.
        StorageError: The file system refused.
    """

    def merged(there: Notes) -> Notes:
        changed = after.note != before.note
        if changed and there.note not in (before.note, after.note):
            raise NotesChangedError(
                f"The note of {folder.name!r} was changed elsewhere since it was shown here and was not replaced: copy "
                "your text, open the note again and add it."
            )
        wanted = (tag for tag in after.tags if tag in there.tags or tag not in before.tags)
        others = (tag for tag in there.tags if tag not in before.tags)
        archived = after.archived if after.archived != before.archived else there.archived
        return Notes((*wanted, *others), after.note if changed else there.note, archived)

    return _change(folder, merged)


def _change(folder: Path, change: Callable[[Notes], Notes]) -> Notes:
    """Read the notes, changes the words and writes them, without another writer in between."""
    with one_writer(folder):
        there = _readable(folder)
        clean = _clean(change(there))
        kept = replace(there, tags=clean.tags, note=clean.note, archived=clean.archived)
        clean = replace(kept, revision=(there.revision or 0) + 1)
        _write(folder, clean)
    return clean


def _clean(notes: Notes) -> Notes:
    """Return the words in the form that is written. Raises `ConfigError`."""
    tags = tuple(dict.fromkeys(" ".join(tag.split()) for tag in notes.tags if tag.strip()))
    if len(tags) > MOST_TAGS:
        raise ConfigError(f"A run has at most {MOST_TAGS} tags, not {len(tags)}.")
    for tag in tags:
        if len(tag) > LONGEST_TAG:
            raise ConfigError(f"A tag has at most {LONGEST_TAG} characters; {tag[:20]!r}... has {len(tag)}.")
    if len(notes.note) > LONGEST_NOTE:
        raise ConfigError(f"A note has at most {LONGEST_NOTE} characters, not {len(notes.note)}.")
    return Notes(tags, notes.note, notes.archived)


def add_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Append an evaluation to a run's notes; of many the oldest go, and of long ones as many as a file must not hold.

    Raises:
        ConfigError: What is there cannot be read and would be lost.
        StorageError: The file system refused.
    """
    with one_writer(folder):
        there = _readable(folder)
        _write(folder, replace(there, evaluations=(*there.evaluations, evaluation)[-MOST_EVALUATIONS:]))


def set_project(folder: Path, project: str) -> None:
    """Move a run to a project, or out of any with an empty one; nothing else of the run changes.

    Raises:
        NameInvalidError: The project is not a valid name.
        ConfigError: What is there cannot be read and would be lost.
        StorageError: The file system refused.
    """
    if project:
        check_project(project)
    with one_writer(folder):
        _write(folder, replace(_readable(folder), project=project))


def set_colour(folder: Path, colour: int | None) -> None:
    """Choose the colour of a run's curves, by its place in the palette, or leave it to the run's name with None.

    Raises:
        ConfigError: The colour is unknown, or the notes cannot be read and would be lost.
        StorageError: The file system refused.
    """
    if colour is not None and not 0 <= colour < MOST_COLOURS:
        raise ConfigError(f"The colour of a run is a number from 0 to {MOST_COLOURS - 1}, not {colour}.")
    with one_writer(folder):
        _write(folder, replace(_readable(folder), colour=colour))


def project_of(info: Mapping[str, Any], notes: Notes) -> str:
    """Return the project of a run, or empty text.

    Args:
        info: The content of ``run.json``, which has the project that the run was started in.
        notes: Its notes, in which a person may have moved it.
    """
    if notes.project is not None:
        return notes.project
    project = info.get("project")
    return project if isinstance(project, str) and is_name(project) else ""


def _readable(folder: Path) -> Notes:
    notes = read_notes(folder)
    if notes.problem:
        raise ConfigError(
            f"The notes of {folder.name!r} stay as they are: {notes.problem}. Repair or remove {files.NOTES}."
        )
    return notes


def _write(folder: Path, notes: Notes) -> None:
    """Write notes in place of those there, of which what another version wrote, or a longer note, is kept."""
    try:
        there = read_object(folder / files.NOTES, _LONGEST_FILE)
    except FileNotFoundError:
        there = {}
    values = {**asdict(notes), "tags": list(notes.tags)}
    del values["problem"]
    for name in ("project", "colour"):
        if values[name] is None:
            del values[name]
    note = there.get("note")
    if isinstance(note, str) and len(note) > LONGEST_NOTE and notes.note == note[:LONGEST_NOTE]:
        values["note"] = note
    others = {name: value for name, value in there.items() if name not in Notes.__dataclass_fields__}
    content = {**others, **values}
    while _size(content) > _LONGEST_FILE and len(kept := content["evaluations"]) > 1:
        content["evaluations"] = kept[min(1 + len(kept) // 8, len(kept) - 1) :]
    if _size(content) > _LONGEST_FILE:
        raise ConfigError(
            f"The notes of {folder.name!r} would be longer than {_LONGEST_FILE} bytes, and are not written."
        )
    files.write_json(folder / files.NOTES, content)


def _size(content: Mapping[str, Any]) -> int:
    return len(files.json_text(content).encode("utf-8", "backslashreplace"))


def _read_evaluations(values: Any) -> tuple[Evaluation, ...]:
    """Read what has the form of an evaluation."""
    found = []
    for value in values[-MOST_EVALUATIONS:] if isinstance(values, list) else []:
        metrics = value.get("metrics") if isinstance(value, dict) else None
        if not isinstance(metrics, dict):
            continue
        data, checkpoint = (str(value.get(key, ""))[:_LONGEST_WORD] for key in ("data", "checkpoint"))
        numbers = {str(key)[:_LONGEST_WORD]: float(number) for key, number in metrics.items() if _is_number(number)}
        moment = value.get("time")
        found.append(Evaluation(float(moment) if _is_number(moment) else math.nan, data, checkpoint, numbers))
    return tuple(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST)


def _clean_tags(tags: Iterable[Any]) -> tuple[str, ...]:
    return tuple(tag[:LONGEST_TAG] for tag in tags if isinstance(tag, str) and tag)[:MOST_TAGS]
