"""MLflow's SQLite store, ``mlflow.db``: tables of experiments, runs, metrics, parameters and tags."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.errors import SourceError
from darkit.integrations.importers.imported import Folder, Imported, Source
from darkit.integrations.importers.mlflow import Metric, StoredRun, image_names
from darkit.integrations.importers.sqlite import Database, DatabaseFile, digest_rows, is_database

_TABLES = {"experiments", "runs", "metrics", "params", "tags"}
_RUN = ("run_uuid", "name", "status", "start_time", "end_time", "user_id", "experiment_id", "lifecycle_stage")
_METRIC = ("key", "value", "is_nan", "timestamp", "step")
_PAIR = ("key", "value")


@dataclass(frozen=True)
class MlflowRow(Source):
    """A run in a database.

    Attributes:
        run_id: MLflow's id.
        experiment: The experiment's name.
        images: The folder of its images, in a store beside the database.
        database: The database, shared with its other runs.
    """

    run_id: str
    experiment: str
    images: Path
    database: DatabaseFile = field(compare=False)

    @property
    def kind(self) -> str:
        return "mlflow"

    @property
    def identity(self) -> str:
        return self.run_id

    def digest(self) -> tuple[str, int]:
        with self.database.open() as database:
            run = database.rows("runs", _RUN, where={"run_uuid": self.run_id})
            names = ((name,) for name in image_names(self.images))
            return digest_rows(
                [run, self._metrics(database), self._pairs(database, "params"), self._pairs(database, "tags"), names]
            )

    def read(self) -> Imported:
        with self.database.open() as database:
            row = next(iter(database.rows("runs", _RUN, where={"run_uuid": self.run_id})), None)
            if row is None:
                raise SourceError(f"The run {self.run_id} is no longer in {self.path}.")
            values = dict(zip(_RUN, row, strict=True))
            problems: list[str] = []
            stored = StoredRun(
                run_id=self.run_id,
                name=self.name,
                experiment=self.experiment,
                status=values["status"],
                start=values["start_time"],
                end=values["end_time"],
                user=str(values["user_id"] or ""),
                metrics=_numbers(self._metrics(database), problems),
                params=dict(self._pairs(database, "params")),
                tags=dict(self._pairs(database, "tags")),
                images=self.images,
                problems=problems,
            )
            problems += database.problems
        return stored.imported()

    def _metrics(self, database: Database) -> Any:
        return database.rows("metrics", _METRIC, where={"run_uuid": self.run_id})

    def _pairs(self, database: Database, table: str) -> list[tuple[str, str]]:
        rows = database.rows(table, _PAIR, where={"run_uuid": self.run_id})
        return [(str(key), "" if value is None else str(value)) for key, value in rows]


def find(folder: Folder) -> list[Source]:
    """Return the runs of the databases in a folder."""
    return [source for name in folder.files for source in _runs(folder, name)]


def _runs(folder: Folder, name: str) -> list[Source]:
    path = folder.path / name
    if not is_database(path):
        return []
    found: list[Source] = []
    deleted, shared = 0, DatabaseFile(path)
    try:
        with shared.open() as database:
            if not database.tables >= _TABLES or "run_uuid" not in database.columns("metrics"):
                return []
            experiments = {one: str(title) for one, title in database.rows("experiments", ("experiment_id", "name"))}
            for row in database.rows("runs", _RUN):
                run = dict(zip(_RUN, row, strict=True))
                if run["lifecycle_stage"] == "deleted":
                    deleted += 1
                    continue
                if not isinstance(run["run_uuid"], str):
                    continue
                run_id, experiment = run["run_uuid"], run["experiment_id"]
                title = str(run["name"] or run_id)
                images = folder.path / "mlruns" / _part(experiment) / _part(run_id) / "artifacts" / "images"
                found.append(MlflowRow(path, title, run_id, experiments.get(experiment, ""), images, shared))
    except SourceError as error:
        folder.remarks.append(str(error))
    if deleted:
        folder.remarks.append(f"{deleted} runs of {path} were deleted in MLflow and are not imported.")
    return found


def _part(value: Any) -> str:
    """Return a value as one part of a path; the database may say anything."""
    text = str(value)
    return text if text.isalnum() else "_"


def _numbers(rows: Any, problems: list[str]) -> list[Metric]:
    found: list[Metric] = []
    bad = 0
    for key, value, is_nan, moment, step in rows:
        if (
            not isinstance(value, int | float)
            or not isinstance(moment, int | float)
            or not isinstance(step, int | None)
        ):
            bad += 1
            continue
        found.append((str(key), math.nan if is_nan else value, moment, step or 0))
    if bad:
        problems.append(f"{bad:,} rows of the table of metrics are no values and were left out.")
    return sorted(found, key=lambda metric: metric[2])
