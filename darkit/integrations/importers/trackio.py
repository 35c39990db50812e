"""trackio's database, one for each project: a row of JSON for each step, and media in a folder beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from darkit.errors import SourceError
from darkit.integrations.importers.imported import Folder, Imported, ImportedMedium, Source
from darkit.integrations.importers.media import inside
from darkit.integrations.importers.reading import parse_json, read_document
from darkit.integrations.importers.rows import Rows, column_name, flatten, is_number
from darkit.integrations.importers.sqlite import Database, DatabaseFile, digest_rows, is_database
from darkit.runs.media import LARGEST
from darkit.runs.media_content import ending_of, histogram_json, table_json

_METRICS = ("timestamp", "step", "metrics")
_SYSTEM = ("timestamp", "metrics")
_CONFIGS = ("config", "created_at")
_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # how trackio writes them
_FILES = {"trackio.image": "image", "trackio.audio": "audio", "trackio.video": "image"}
_NO_END = "trackio does not record how a run ended."
_MOST_MEDIA = 200_000


@dataclass(frozen=True)
class TrackioSource(Source):
    """A run in a project's database.

    Attributes:
        column: The column that tells runs apart: ``run_id``, or ``run_name`` in older databases.
        key: Its value for this run.
        database: The database, shared with the project's other runs.
    """

    column: str
    key: str
    database: DatabaseFile = field(compare=False)

    @property
    def kind(self) -> str:
        return "trackio"

    @property
    def identity(self) -> str:
        return self.key

    def digest(self) -> tuple[str, int]:
        with self.database.open() as database:
            return digest_rows(self._rows(database, *part) for part in _PARTS)

    def read(self) -> Imported:
        found = _Run()
        with self.database.open() as database:
            for moment, step, text in self._rows(database, *_PARTS[0]):
                found.add(step, _time(moment), text)
            for moment, text in self._rows(database, *_PARTS[1]):
                found.add_system(_time(moment), text)
            config: dict[str, Any] = {}
            created = None
            for text, moment in self._rows(database, *_PARTS[2]):
                value = parse_json(text) if isinstance(text, bytes | str) else None
                config, created = (value if isinstance(value, dict) else {}), _time(moment)
            found.problems += database.problems
        return found.imported(config, created, self.path.with_suffix("").name, self.name, self.path.parent / "media")

    def _rows(self, database: Database, table: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        return database.rows(table, columns, where={self.column: self.key})


_PARTS = (("metrics", _METRICS), ("system_metrics", _SYSTEM), ("configs", _CONFIGS))


def find(folder: Folder) -> list[Source]:
    """Return the runs of the databases in a folder."""
    found: list[Source] = []
    for name in folder.files:
        path = folder.path / name
        if not is_database(path):
            continue
        shared = DatabaseFile(path)
        try:
            with shared.open() as database:
                columns = database.columns("metrics")
                if not {"run_name", "step", "metrics", "timestamp"} <= columns:
                    continue
                column = "run_id" if "run_id" in columns else "run_name"
                names = dict.fromkeys(database.rows("metrics", (column, "run_name")))
                names |= dict.fromkeys(database.rows("configs", (column, "run_name")))
        except SourceError as error:
            folder.remarks.append(str(error))
            continue
        by_key = {str(key): str(title) for key, title in names if key is not None}
        found += [TrackioSource(path, title, column, key, shared) for key, title in by_key.items()]
        folder.folders = [one for one in folder.folders if one != "media"]
    return found


class _Run:
    """What has been read so far."""

    def __init__(self) -> None:
        self._rows = Rows()
        self._system: list[dict[str, Any]] = []
        self._media: list[tuple[str, int, float, Mapping[str, Any]]] = []
        self._left_out: Counter[str] = Counter()
        self.problems: list[str] = []
        self._bad = 0
        self._step = 0

    def add(self, step: Any, time: float | None, text: Any) -> None:
        """Add a row of metrics."""
        values = parse_json(text) if isinstance(text, bytes | str) else None
        if not isinstance(values, dict) or not isinstance(step, int):
            self._bad += 1
            return
        self._step = max(self._step, step)
        cells = {}
        for name, value in flatten(values).items():
            if isinstance(value, Mapping):
                self._add_media(name, step, time, value)
            elif isinstance(value, list):
                self._left_out["lists"] += 1
            else:
                cells[name] = _ODD.get(value, value) if isinstance(value, str) else value
        self._rows.add(step, cells, time)

    def _add_media(self, name: str, step: int, time: float | None, value: Mapping[str, Any]) -> None:
        kind = value.get("_type")
        if kind in (*_FILES, "trackio.histogram", "trackio.table") and step >= 0 and len(self._media) < _MOST_MEDIA:
            self._media.append((name, step, time or 0.0, value))
        else:
            self._left_out[str(kind)[:40]] += 1

    def add_system(self, time: float | None, text: Any) -> None:
        """Add a row of system metrics."""
        values = parse_json(text) if isinstance(text, bytes | str) else None
        if isinstance(values, dict):
            numbers = {f"system.{name}": float(value) for name, value in flatten(values).items() if is_number(value)}
            self._system.append({"time": time, **numbers})

    def imported(self, config: dict[str, Any], created: float | None, project: str, name: str, media: Path) -> Imported:
        """Return the run. `media` is the folder of all media of the projects."""
        problems = self.problems
        if self._bad:
            problems.append(f"{self._bad:,} rows of metrics are not whole and were left out.")
        left_out = ", ".join(f"{kind} ({count})" for kind, count in sorted(self._left_out.items()))
        if left_out:
            problems.append(f"A run keeps no values of these kinds; they were left out: {left_out}.")
        times = self._rows.times
        began = _time(config.get("_Created")) or created or (times[0] if times else 0.0)
        return Imported(
            rows=self._rows,
            config={key: value for key, value in config.items() if not key.startswith("_")},
            media=lambda: self._read_media(media, problems),
            reason=_NO_END,
            started=began,
            ended=times[1] if times else began,
            last_step=self._step,
            facts={"project": project, "display_name": name, "group": config.get("_Group") or ""},
            system=self._system,
            problems=problems,
        )

    def _read_media(self, folder: Path, problems: list[str]) -> Iterator[ImportedMedium]:
        missing = []
        for name, step, time, value in self._media:
            try:
                yield _medium(column_name(name), step, time, value, folder)
            except (SourceError, ValueError, TypeError, KeyError) as error:
                missing.append(f"{name!r} of step {step}: {error}")
        if missing:
            problems.append(f"{len(missing):,} media could not be read; the first: {missing[0]}")


def _medium(key: str, step: int, time: float, value: Mapping[str, Any], folder: Path) -> ImportedMedium:
    """Read what a value of the log stands for. Raises `SourceError`, or `ValueError` and others for another form."""
    kind, caption = value["_type"], value.get("caption")
    if kind == "trackio.histogram":
        return ImportedMedium("histogram", key, step, histogram_json(value["bins"], value["values"]), "json", time)
    if kind == "trackio.table":
        rows = value["_value"]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[row.get(column) for column in columns] for row in rows]
        return ImportedMedium("table", key, step, table_json(columns, cells), "json", time)
    data = read_document(inside(folder, value.get("file_path")), LARGEST)
    text = caption if isinstance(caption, str) else ""
    return ImportedMedium(_FILES[kind], key, step, data, ending_of(data), time, text)


def _time(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
