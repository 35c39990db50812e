"""What people write about a run: tags, a note, and whether it is put away. `notes.json`, read and written here only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_object

LONGEST_TAG = 60  # characters
MOST_TAGS = 30
LONGEST_NOTE = 20_000  # characters


@dataclass(frozen=True)
class Notes:
    """A person's words about a run.

    Attributes:
        tags: Short words to group and filter by, each at most 60 characters.
        note: Free text of at most 20,000 characters.
        archived: Whether the run is put away: kept, but not shown by default.
        problem: Why the file cannot be read, or empty; it is not written.
    """

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False
    problem: str = ""


def read_notes(folder: Path) -> Notes:
    """Reads a run's notes; what is missing or has another form than it should counts as empty."""
    try:
        values = read_object(folder / files.NOTES, 2**20)
    except FileNotFoundError:
        return Notes()
    except (OSError, UnreadableError) as error:
        return Notes(problem=str(error))
    tags, note = values.get("tags"), values.get("note")
    return Notes(
        tags=_clean_tags(tags) if isinstance(tags, list) else (),
        note=note[:LONGEST_NOTE] if isinstance(note, str) else "",
        archived=values.get("archived") is True,
    )


def write_notes(folder: Path, notes: Notes) -> Notes:
    """Writes a run's notes.

    Returns:
        What was written: tags without doubles and without spaces around them.

    Raises:
        ConfigError: A tag or the note is too long, there are too many tags, or what is there cannot be read and would
            be lost.
        StorageError: The file system refused.
    """
    tags = tuple(dict.fromkeys(" ".join(tag.split()) for tag in notes.tags if tag.strip()))
    if len(tags) > MOST_TAGS:
        raise ConfigError(f"A run has at most {MOST_TAGS} tags, not {len(tags)}.")
    for tag in tags:
        if len(tag) > LONGEST_TAG:
            raise ConfigError(f"A tag has at most {LONGEST_TAG} characters; {tag[:20]!r}... has {len(tag)}.")
    if len(notes.note) > LONGEST_NOTE:
        raise ConfigError(f"A note has at most {LONGEST_NOTE} characters, not {len(notes.note)}.")
    problem = read_notes(folder).problem
    if problem:
        raise ConfigError(f"The notes of {folder.name!r} stay as they are: {problem}. Mend or remove {files.NOTES}.")
    clean = Notes(tags, notes.note, notes.archived)
    values = asdict(clean)
    del values["problem"]
    files.write_json(folder / files.NOTES, {**values, "tags": list(tags)})
    return clean


def _clean_tags(tags: Iterable[Any]) -> tuple[str, ...]:
    return tuple(tag[:LONGEST_TAG] for tag in tags if isinstance(tag, str) and tag)[:MOST_TAGS]
