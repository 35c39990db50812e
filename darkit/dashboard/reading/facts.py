"""The small files of a run, read so that nothing in them can break a page: problems are reported, not raised."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from darkit.errors import DarkitError
from darkit.runs import files
from darkit.runs.names import check_name
from darkit.runs.notes import Notes, project_of, read_notes
from darkit.runs.roots import address_of
from darkit.runs.safe import UnreadableError, as_dict, read_object
from darkit.runs.status import ALIVE, Status, read_status

BROKEN = "broken"
WATCHED = (files.STATUS, files.RUN, files.MODEL_CONFIG, files.TRAINER_CONFIG, files.NOTES)
_MOST_KEYS = 500
_LONGEST_VALUE = 200  # characters of a config value in a table
_LONGEST_TRACEBACK = 100_000  # characters

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Facts:
    """The small files of a run directory at one moment.

    Attributes:
        folder: The run directory.
        state: The state of its status, or ``broken`` if the folder is not a readable run.
        problem: What is wrong with its files, or empty.
        status: Step, times, reason and traceback; numbers are finite numbers.
        info: ``run.json``.
        config: ``config.json``.
        trainer: ``trainer_config.json``.
        notes: Its tags and note.
        opens: Whether it has a page: its name is valid, and it is a real folder.
        label: The label of its root; empty for the first.
        settled: Whether its status file says that it has ended, so that nothing changes while the files do not.
    """

    folder: Path
    state: str
    problem: str = ""
    status: Status = field(default_factory=Status)
    info: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    opens: bool = True
    label: str = ""
    settled: bool = False

    @property
    def name(self) -> str:
        """The address of the run, as text that can be shown: its folder's name, after the label of its root."""
        return readable(address_of(self.label, self.folder.name))

    @property
    def series(self) -> Mapping[str, Any]:
        """The series that the run defines, unchecked."""
        return as_dict(self.info.get("series"))

    @property
    def model(self) -> str:
        """The class name of the model, without its module."""
        model = self.info.get("model")
        path = model.get("class") if isinstance(model, dict) else model
        return path.rpartition(".")[2].rpartition(":")[2] if isinstance(path, str) else ""

    @property
    def project(self) -> str:
        """The project that it belongs to, or empty."""
        return project_of(self.info, self.notes)

    @property
    def group(self) -> str:
        """The sweep, or the repetition over seeds, that the run belongs to, or empty."""
        group = self.info.get("group")
        return readable(group)[:_LONGEST_VALUE] if isinstance(group, str) else ""

    def config_values(self) -> dict[str, Any]:
        """Return every config value by a flat key: ``model.…`` and ``trainer.…``."""
        return {**flatten(self.config, "model"), **flatten(self.trainer, "trainer")}


def signature(folder: Path) -> Signature:
    """Return a value that changes when one of the small files does."""
    prefix = os.fspath(folder)
    return tuple(stamp(f"{prefix}/{name}") for name in WATCHED)


def read_facts(folder: Path, status_of: Callable[[Path], Status] = read_status, label: str = "") -> Facts:
    """Read the small files of a run directory in the root of a label; ``status_of`` reads its status."""
    try:
        check_name(folder.name)
    except DarkitError as error:
        return Facts(folder, BROKEN, str(error).partition(";")[0], opens=False, label=label)
    if folder.is_symlink():
        return Facts(folder, BROKEN, "It is a link; links are not followed.", opens=False, label=label)
    problems: list[str] = []
    info = _read(folder / files.RUN, problems, missing="run.json is missing: not a run, or it ended before it started")
    config = _read(folder / files.MODEL_CONFIG, problems)
    trainer = _read(folder / files.TRAINER_CONFIG, problems)
    said = _read(folder / files.STATUS, problems, missing="status.json is missing").get("state")
    status = _readable(status_of(folder))
    state = BROKEN if problems else status.state
    settled = isinstance(said, str) and said not in ALIVE and state not in ALIVE
    notes = read_notes(folder)
    if notes.problem:  # the run itself is sound
        problems.append(notes.problem)
    return Facts(folder, state, ". ".join(problems), status, info, config, trainer, notes, label=label, settled=settled)


def flatten(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Flatten nested values: ``{"a": {"b": 1}}`` into ``{"prefix.a.b": 1}``; lists become text."""
    flat: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [(prefix, values)]
    while pending and len(flat) < _MOST_KEYS:
        key, value = pending.pop()
        if isinstance(value, dict) and value:
            pending.extend((f"{key}.{readable(str(name))}", item) for name, item in reversed(value.items()))
        else:
            flat[key] = plain_value(value)
    return flat


def plain_value(value: Any) -> Any:
    """Return a config value as a number, boolean or short text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 2**53 else str(value)[:_LONGEST_VALUE]  # also where it is NaN
    text = readable(value if isinstance(value, str) else str(value))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def readable(text: str) -> str:
    """Return the text with everything that UTF-8 cannot encode replaced."""
    return text.encode("utf-8", "replace").decode()


def stamp(path: str) -> tuple[int, int, int] | None:
    """Return a value that changes when a file does, or None without the file."""
    try:
        state = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - thousands at each look, and text is faster
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _read(path: Path, problems: list[str], missing: str = "") -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError:
        if missing:
            problems.append(missing)
    except UnreadableError as error:
        problems.append(str(error))
    return {}


def _readable(status: Status) -> Status:
    state, host, reason = (readable(text) for text in (status.state, status.host, status.reason))
    traceback = readable(status.traceback[:_LONGEST_TRACEBACK])
    return replace(status, state=state, host=host, reason=reason, traceback=traceback)
