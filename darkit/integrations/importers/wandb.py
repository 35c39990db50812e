"""W&B's runs as its client keeps them on this machine: read from the ``.wandb`` file, without W&B, network or login.

The numbers of the fields are those of ``wandb_internal.proto``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.errors import SourceError
from darkit.integrations.importers.events import TornError
from darkit.integrations.importers.imported import Folder, Imported, ImportedMedium, Source
from darkit.integrations.importers.reading import digest_files, parse_json, read_document
from darkit.integrations.importers.rows import Rows, flatten, is_number
from darkit.integrations.importers.wandb_media import KNOWN, media_of
from darkit.integrations.importers.wandb_records import read_records
from darkit.integrations.importers.wire import Message
from darkit.runs.safe import finite_number

_ENDING = ".wandb"
_RUN, _HISTORY, _SUMMARY, _CONFIG, _STATS, _OUTPUT, _OUTPUT_RAW, _EXIT, _ENVIRONMENT = 17, 2, 3, 5, 7, 4, 13, 18, 26
_METRIC = 12
_PROGRAM = 6  # of the environment
_JSON = 16  # the value of an item
_NO_END = "W&B's file has no exit record: the run was still running, or was killed, when its log ended."
_LONGEST_CONSOLE = 4 * 2**20  # characters
_MOST_STATS = 1_000_000
_MOST_MEDIA = 200_000
_OWN = ("_step", "_timestamp", "_runtime", "_wandb")
_PEEK = 50  # records among which the run's name is looked for


@dataclass(frozen=True)
class WandbSource(Source):
    """One ``.wandb`` file, and ``files/`` beside it."""

    @property
    def kind(self) -> str:
        return "wandb"

    def digest(self) -> tuple[str, int]:
        return digest_files(self.path.parent, [self.path.name])

    def read(self) -> Imported:
        found = _Run()
        problems = []
        try:
            for record in read_records(self.path):
                found.add(record)
        except (TornError, ValueError) as error:
            if isinstance(error, SourceError) and not found.any:
                raise
            problems.append(f"{self.path.name}: {error}.")
        if not found.any:
            raise SourceError(f"Nothing of {self.path} could be read: {problems[0] if problems else 'it is empty.'}")
        return found.imported(self.path.parent / "files", problems)


def find(folder: Folder) -> list[Source]:
    """Return the runs whose files are in a folder."""
    names = [name for name in folder.files if name.endswith(_ENDING)]
    if names:
        folder.folders.clear()  # its media and logs
    return [WandbSource(folder.path / name, _name(folder.path / name)) for name in names]


def _name(path: Path) -> str:
    """Return what a run is called, from the beginning of its file, or its id."""
    try:
        for _, record in zip(range(_PEEK), read_records(path), strict=False):
            if _RUN in record:
                run = record.message(_RUN)
                return run.text(8) or run.text(1) or path.stem
    except (TornError, SourceError, ValueError):
        pass
    return path.stem


class _Run:
    """What has been read so far."""

    def __init__(self) -> None:
        self.any = False
        self._rows = Rows()
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        self._run = self._environment = Message(b"")
        self._exit: Message | None = None
        self._axes: dict[str, str] = {}
        self._stats: list[dict[str, Any]] = []
        self._console: list[str] = []
        self._length = 0
        self._step, self._last = 0, 0.0
        self._media: list[tuple[str, int, float, Mapping[str, Any]]] = []
        self._left_out: Counter[str] = Counter()

    def add(self, record: Message) -> None:
        """Add what a record contains. Raises `ValueError` if it is damaged."""
        self.any = True
        if _HISTORY in record:
            self._add_history(record.message(_HISTORY))
        elif _RUN in record:
            self._run = record.message(_RUN)
            _update(self._config, self._run.message(4))
        elif _CONFIG in record:
            _update(self._config, record.message(_CONFIG))
        elif _SUMMARY in record:
            _update(self._summary, record.message(_SUMMARY))
        elif _METRIC in record:
            metric = record.message(_METRIC)
            if metric.text(4):
                self._axes[metric.text(1)] = metric.text(4)
        elif _STATS in record:
            self._add_stats(record.message(_STATS))
        elif _OUTPUT_RAW in record or _OUTPUT in record:
            text = record.message(_OUTPUT_RAW if _OUTPUT_RAW in record else _OUTPUT).text(3)
            if self._length < _LONGEST_CONSOLE:
                self._console.append(text)
                self._length += len(text)
        elif _EXIT in record:
            self._exit = record.message(_EXIT)
        elif _ENVIRONMENT in record and _PROGRAM not in self._environment:  # a second one describes the machine only
            self._environment = record.message(_ENVIRONMENT)

    def _add_history(self, history: Message) -> None:
        values: dict[str, Any] = {}
        for item in history.messages(1):
            _set(values, item, item.text(_JSON))
        step = values.get("_step", history.message(2).integer(1))
        time = finite_number(values.get("_timestamp"))
        self._last = max(self._last, time or 0.0)
        self._step = step if isinstance(step, int) else self._step
        cells = {}
        for name, value in sorted(flatten(values).items()):
            if name in _OWN or name.startswith("_wandb."):
                continue
            if isinstance(value, Mapping):
                self._add_media(name, value)
            elif isinstance(value, list):
                self._left_out["lists"] += 1
            else:
                cells[name] = value
        self._rows.add(step, cells, time)

    def _add_media(self, name: str, value: Mapping[str, Any]) -> None:
        kind = value.get("_type")
        if kind in KNOWN and len(self._media) < _MOST_MEDIA and self._step >= 0:
            self._media.append((name, self._step, self._last, value))
        else:
            self._left_out[str(kind)[:40]] += 1

    def _add_stats(self, stats: Message) -> None:
        if len(self._stats) >= _MOST_STATS:
            return
        row: dict[str, Any] = {"time": _seconds(stats.message(2)), "step": self._step}
        for item in stats.messages(3):
            value = parse_json(item.text(_JSON))
            if is_number(value):
                row[f"system.{item.text(1)}"] = float(value)
        self._stats.append(row)
        self._last = max(self._last, row["time"])

    def imported(self, folder: Path, problems: list[str]) -> Imported:
        """Return the run. `folder` has its media."""
        run, code = self._run, self._exit.integer(1) if self._exit else None
        state, reason = "unknown", _NO_END
        if code is not None:
            state, reason = ("finished", "") if code == 0 else ("crashed", f"The script ended with exit code {code}.")
        left_out = ", ".join(f"{kind} ({count})" for kind, count in sorted(self._left_out.items()))
        if left_out:
            problems.append(f"A run keeps no values of these kinds; they were left out: {left_out}.")
        started = _seconds(run.message(17))
        summary = {name: value for name, value in flatten(self._summary).items() if not isinstance(value, dict | list)}
        facts = {"run_id": 1, "entity": 2, "project": 3, "group": 6, "job_type": 7, "display_name": 8, "sweep_id": 12}
        return Imported(
            rows=self._rows,
            axes=self._axes,
            config={name: value for name, value in self._config.items() if name != "_wandb"},
            media=lambda: self._read_media(folder, problems),
            state=state,
            reason=reason,
            last_step=self._step,
            started=started,
            ended=max(self._last, started),
            tags=run.texts(10),
            note=run.text(9),
            facts={name: run.text(number) for name, number in facts.items() if run.text(number)}
            | {"summary": {name: value for name, value in summary.items() if not name.startswith("_")}},
            provenance=self._provenance(),
            packages=_packages(folder / "requirements.txt"),
            system=self._stats,
            console="".join(self._console),
            problems=problems,
        )

    def _provenance(self) -> dict[str, Any]:
        run, environment = self._run, self._environment
        git = run.message(21) if 21 in run else environment.message(9)
        program = [text for text in (environment.text(14), environment.text(_PROGRAM)) if text]
        command = [*program, *environment.texts(5)]
        python = environment.text(2).removeprefix("CPython ")
        return {
            **({"command": command} if command else {}),
            **({"git": {"commit": git.text(2), "diff": ""}} if git.text(2) else {}),
            **({"versions": {"python": python}} if python else {}),
            "host": {"name": run.text(13) or environment.text(12), "system": environment.text(1)},
        }

    def _read_media(self, folder: Path, problems: list[str]) -> Iterator[ImportedMedium]:
        missing = []
        for name, step, time, value in self._media:
            try:
                yield from media_of(name, step, time, value, folder)
            except (SourceError, ValueError, TypeError) as error:
                missing.append(f"{name!r} of step {step}: {error}")
        if missing:
            problems.append(f"{len(missing):,} media could not be read; the first: {missing[0]}")


def _update(values: dict[str, Any], changes: Message) -> None:
    """Apply the changes of a config or a summary."""
    for item in changes.messages(1):
        _set(values, item, item.text(_JSON))
    for item in changes.messages(2):
        path = item.texts(2) or [item.text(1)]
        place: Any = values
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(path[-1], None)


def _set(values: dict[str, Any], item: Message, text: str) -> None:
    """Set the value of an item, whose name may be a path."""
    path = item.texts(2) or [item.text(1)]
    place = values
    for key in path[:-1]:
        inner = place.get(key)
        if not isinstance(inner, dict):
            inner = place[key] = {}
        place = inner
    place[path[-1]] = parse_json(text)


def _seconds(timestamp: Message) -> float:
    return timestamp.integer(1) + timestamp.integer(2) / 1e9


def _packages(path: Path) -> dict[str, str]:
    try:
        lines = read_document(path, 2**20).decode("utf-8", "replace").splitlines()
    except SourceError:
        return {}
    pairs = (line.strip().partition("==") for line in lines)
    return {name: version for name, equals, version in pairs if equals}
