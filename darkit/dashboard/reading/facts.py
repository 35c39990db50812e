"""What is known of a run, read so that nothing in its folder can break a page: broken parts are told, not raised."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.errors import DarkitError
from darkit.runs import files
from darkit.runs.names import check_name
from darkit.runs.notes import Notes, read_notes
from darkit.runs.safe import UnreadableError, read_object
from darkit.runs.safe import finite_number as number
from darkit.runs.status import Status, read_status

BROKEN = "broken"
_WATCHED = (files.STATUS, files.RUN, files.MODEL_CONFIG, files.TRAINER_CONFIG, files.NOTES)
_MOST_KEYS = 500
_LONGEST_VALUE = 200  # characters of a config value in a table

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Facts:
    """The small files of a run directory at one moment.

    Attributes:
        folder: The run directory.
        state: Its status' state, or ``broken`` where the folder cannot be taken for a run.
        problem: What is wrong with its files, or empty.
        status: Step, times, reason and traceback; numbers are finite numbers.
        info: ``run.json``.
        config: ``config.json``.
        trainer: ``trainer_config.json``.
        notes: A person's tags and note.
        opens: Whether it has a page of its own: its name is one, and it is a real folder.
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

    @property
    def name(self) -> str:
        """The folder's name, as text that can be shown."""
        return readable(self.folder.name)

    @property
    def series(self) -> Mapping[str, Any]:
        """The run's own series definitions, unchecked."""
        series = self.info.get("series")
        return series if isinstance(series, dict) else {}

    @property
    def model(self) -> str:
        """The name of the model's class, without its module."""
        model = self.info.get("model")
        path = model.get("class") if isinstance(model, dict) else model
        return path.rpartition(".")[2].rpartition(":")[2] if isinstance(path, str) else ""

    def config_values(self) -> dict[str, Any]:
        """Every config value by a flat key: ``model.…`` and ``trainer.…``."""
        return {**flatten(self.config, "model"), **flatten(self.trainer, "trainer")}


def signature(folder: Path) -> Signature:
    """What changes when one of the small files does."""
    prefix = os.fspath(folder)
    return tuple(_stamp(f"{prefix}/{name}") for name in _WATCHED)


def read_facts(folder: Path, status_of: Callable[[Path], Status] = read_status) -> Facts:
    """Reads the small files of a run directory; ``status_of`` reads its status."""
    try:
        check_name(folder.name)
    except DarkitError as error:
        return Facts(folder, BROKEN, str(error).partition(";")[0], opens=False)
    if folder.is_symlink():
        return Facts(folder, BROKEN, "It is a link, which is not followed.", opens=False)
    problems: list[str] = []
    info = _read(folder / files.RUN, problems, missing="It has no run.json: it is no run, or ended before it began")
    config = _read(folder / files.MODEL_CONFIG, problems)
    trainer = _read(folder / files.TRAINER_CONFIG, problems)
    _read(folder / files.STATUS, problems, missing="It has no status.json")
    try:
        status = _sound(status_of(folder))
    except (OSError, TypeError, ValueError, AttributeError):  # its values have other types than they should
        status = Status()
    state = BROKEN if problems else status.state
    notes = read_notes(folder)
    if notes.problem:  # the run itself is sound
        problems.append(notes.problem)
    return Facts(folder, state, ". ".join(problems), status, info, config, trainer, notes)


def flatten(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Turns nested values into flat ones: ``{"a": {"b": 1}}`` into ``{"prefix.a.b": 1}``; lists become text."""
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
    """A number, truth value or short text for a config value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 2**53 else str(value)[:_LONGEST_VALUE]  # also where it is NaN
    text = readable(value if isinstance(value, str) else str(value))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def readable(text: str) -> str:
    """The same text where bytes that are no UTF-8 are replaced by a mark."""
    return text.encode("utf-8", "replace").decode()


def _stamp(path: str) -> tuple[int, int, int] | None:
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


def _sound(status: Status) -> Status:
    maximum = number(status.max_step)
    return Status(
        state=readable(str(status.state)),
        step=int(number(status.step) or 0),
        max_step=int(maximum) if maximum is not None else None,
        started=number(status.started) or 0.0,
        heartbeat=number(status.heartbeat) or 0.0,
        host=readable(str(status.host)),
        pid=int(number(status.pid) or 0),
        reason=readable(str(status.reason)),
        traceback=readable(str(status.traceback)[:100_000]),
    )
