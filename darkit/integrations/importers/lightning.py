"""What Lightning's loggers leave in a version's folder: ``metrics.csv``, ``hparams.yaml`` and event files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.errors import SourceError
from darkit.integrations.importers.imported import Folder, Imported, Source
from darkit.integrations.importers.reading import digest_files, modified, opened, read_yaml
from darkit.integrations.importers.rows import Rows
from darkit.integrations.importers.tensorboard import event_files, read_event_files

_METRICS = "metrics.csv"
_HPARAMS = "hparams.yaml"
_NO_END = "Lightning's loggers do not record how a run ended."
_LONGEST_LINE = 2**20  # bytes


@dataclass(frozen=True)
class LightningSource(Source):
    """A folder such as ``lightning_logs/version_0``.

    Attributes:
        files: Those of its files that are read.
    """

    files: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "lightning"

    def digest(self) -> tuple[str, int]:
        return digest_files(self.path, self.files)

    def read(self) -> Imported:
        found = Imported(reason=_NO_END, started=modified(self.path, self.files, first=True))
        found.ended = modified(self.path, self.files)
        if _METRICS in self.files:
            _read_metrics(self.path / _METRICS, found)
        events = [self.path / name for name in self.files if name not in (_METRICS, _HPARAMS)]
        if events:
            _add_events(found, read_event_files(events))
        if _HPARAMS in self.files:
            try:
                found.config = read_yaml(self.path / _HPARAMS)
            except SourceError as error:
                found.problems.append(str(error))
        return found


def find(folder: Folder) -> list[Source]:
    """Return the run in a folder with metrics of Lightning, or with event files and hyperparameters."""
    events = event_files(folder)
    metrics = _METRICS in folder.files and _is_metrics(folder.path / _METRICS)
    if not metrics and not (events and _HPARAMS in folder.files):
        return []
    own = [name for name, there in ((_METRICS, metrics), (_HPARAMS, _HPARAMS in folder.files)) if there]
    folder.files = [name for name in folder.files if name not in events]  # they are a part of this run
    folder.folders = [name for name in folder.folders if name != "checkpoints"]
    return [LightningSource(folder.path, folder.name(), (*own, *events))]


def _is_metrics(path: Path) -> bool:
    try:
        with opened(path) as file:
            header = file.readline(_LONGEST_LINE).decode("utf-8", "replace")
    except SourceError:
        return False
    try:
        return "step" in next(csv.reader([header]), [])
    except csv.Error:
        return False


def _read_metrics(path: Path, found: Imported) -> None:
    """Read the rows of ``metrics.csv``; of a damaged or half written one those that are whole."""
    bad = 0
    with opened(path) as file:
        reader = csv.reader(_lines(file))
        try:
            header = next(reader, [])
            for row in reader:
                if len(row) != len(header):
                    bad += 1
                    continue
                values = {name: _parsed(text) for name, text in zip(header, row, strict=True) if text}
                found.rows.add(values.pop("step", None), values)
        except csv.Error as error:
            found.problems.append(f"{path.name} was read up to a line that is no row: {error}.")
        rest = file.read(1)
    if bad or rest:
        found.problems.append(f"{bad + bool(rest):,} lines of {path.name} are not whole rows and were left out.")


def _lines(file: Any) -> Iterator[str]:
    """Yield the whole lines of a file; leave the file before one that is not."""
    while line := file.readline(_LONGEST_LINE):
        if not line.endswith(b"\n"):
            file.seek(-len(line), io.SEEK_CUR)
            return
        yield line.decode("utf-8", "replace").replace("\0", "")


def _parsed(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, OverflowError):
            continue
    return {"True": True, "False": False}.get(text, text)


def _add_events(found: Imported, events: Imported) -> None:
    """Add what the events have and ``metrics.csv`` has not: its numbers are not rounded to 32 bits."""
    if not len(found.rows):
        found.rows = events.rows
    else:
        known = set(found.rows.columns())
        _add_columns(found.rows, events.rows, known)
    found.media, found.problems = events.media, [*found.problems, *events.problems]
    found.started, found.ended, found.config = events.started, events.ended, events.config


def _add_columns(rows: Rows, others: Rows, known: set[str]) -> None:
    for row in others:
        new = {name: value for name, value in row.items() if name not in known and name not in ("step", "time")}
        rows.add(row["step"], new, row.get("time"))
