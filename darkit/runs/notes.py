"""What is known of a run beside its training: a person's tags and note, whether it is put away, how it was evaluated.

`notes.json` is read and written here only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_object

LONGEST_TAG = 60  # characters
MOST_TAGS = 30
LONGEST_NOTE = 20_000  # characters
MOST_EVALUATIONS = 200
OWN_DATA = "the run's own data"  # what an evaluation on that is called
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
        problem: Why the file cannot be read, or empty; it is not written.
    """

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False
    evaluations: tuple[Evaluation, ...] = ()
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
        evaluations=_read_evaluations(values.get("evaluations")),
    )


def write_notes(folder: Path, notes: Notes) -> Notes:
    """Writes a person's words about a run; its evaluations stay as they are.

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
    there = _readable(folder)
    clean = Notes(tags, notes.note, notes.archived, there.evaluations)
    _write(folder, clean)
    return clean


def add_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Appends an evaluation to a run's notes; of many the oldest go.

    Raises:
        ConfigError: What is there cannot be read and would be lost.
        StorageError: The file system refused.
    """
    there = _readable(folder)
    _write(folder, replace(there, evaluations=(*there.evaluations, evaluation)[-MOST_EVALUATIONS:]))


def _readable(folder: Path) -> Notes:
    notes = read_notes(folder)
    if notes.problem:
        raise ConfigError(
            f"The notes of {folder.name!r} stay as they are: {notes.problem}. Mend or remove {files.NOTES}."
        )
    return notes


def _write(folder: Path, notes: Notes) -> None:
    values = asdict(notes)
    del values["problem"]
    files.write_json(folder / files.NOTES, {**values, "tags": list(notes.tags)})


def _read_evaluations(values: Any) -> tuple[Evaluation, ...]:
    """Reads what has the form of an evaluation."""
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
