"""MLflow's file store, ``mlruns``: a folder for each experiment, and in it one for each run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.errors import SourceError
from darkit.integrations.importers.imported import Folder, Imported, Source
from darkit.integrations.importers.mlflow import Metric, StoredRun
from darkit.integrations.importers.reading import digest_files, opened, read_document, read_yaml

_META = "meta.yaml"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PARTS = ("metrics", "params", "tags", "artifacts/images")
_MOST_FILES = 100_000  # of a run
_DEEPEST = 20
_LONGEST_LINE = 2_000  # bytes
_LONGEST_VALUE = 2**20  # bytes of a parameter or a tag


@dataclass(frozen=True)
class MlflowFolder(Source):
    """The folder of a run.

    Attributes:
        experiment: The experiment's name.
    """

    experiment: str = ""

    @property
    def kind(self) -> str:
        return "mlflow"

    def digest(self) -> tuple[str, int]:
        return digest_files(self.path, [_META, *(name for part in _PARTS for name in _files(self.path, part))])

    def read(self) -> Imported:
        meta = read_yaml(self.path / _META)
        problems: list[str] = []
        run = StoredRun(
            run_id=_run_id(meta),
            name=self.name,
            experiment=self.experiment,
            status=meta.get("status"),
            start=meta.get("start_time"),
            end=meta.get("end_time"),
            user=str(meta.get("user_id") or ""),
            metrics=self._metrics(problems),
            params=self._texts("params", problems),
            tags=self._texts("tags", problems),
            images=self.path / "artifacts" / "images",
            problems=problems,
        )
        return run.imported()

    def _metrics(self, problems: list[str]) -> list[Metric]:
        found: list[Metric] = []
        for name in _files(self.path, "metrics"):
            bad = 0
            with opened(self.path / name) as file:
                while line := file.readline(_LONGEST_LINE):
                    metric = _metric(name.partition("/")[2], line)
                    if metric is None:
                        bad += bool(line.strip())
                    else:
                        found.append(metric)
            if bad:
                problems.append(f"{bad:,} lines of {name} are no values and were left out.")
        return found

    def _texts(self, part: str, problems: list[str]) -> dict[str, str]:
        found = {}
        for name in _files(self.path, part):
            try:
                data = read_document(self.path / name, _LONGEST_VALUE)
            except SourceError as error:
                problems.append(str(error))
                continue
            found[name.partition("/")[2]] = data.decode("utf-8", "replace")
        return found


def find(folder: Folder) -> list[Source]:
    """Return the runs of an experiment's folder, or the run that a folder is."""
    if _RUN_ID.fullmatch(folder.path.name):  # also of a store whose runs are in a database
        folder.folders = [name for name in folder.folders if name != "artifacts"]
    if _META not in folder.files:
        return []
    try:
        meta = read_yaml(folder.path / _META)
    except SourceError as error:
        folder.remarks.append(str(error))
        return []
    if _run_id(meta):
        folder.folders.clear()
        return [MlflowFolder(folder.path, _name(meta), _experiment(folder.path.parent))]
    if "experiment_id" not in meta or "artifact_location" not in meta:
        return []
    found: list[Source] = []
    for name in folder.folders:
        path = folder.path / name
        try:
            inner = read_yaml(path / _META)
        except SourceError as error:
            if (path / _META).exists():
                folder.remarks.append(str(error))
            continue
        if not _run_id(inner):
            continue
        if inner.get("lifecycle_stage") == "deleted":
            folder.remarks.append(f"The run {_name(inner)!r} in {path} was deleted in MLflow and is not imported.")
        else:
            found.append(MlflowFolder(path, _name(inner), str(meta.get("name") or "")))
    folder.folders.clear()
    return found


def _run_id(meta: dict[str, Any]) -> str:
    value = meta.get("run_id") or meta.get("run_uuid")
    return value if isinstance(value, str) else ""


def _name(meta: dict[str, Any]) -> str:
    return str(meta.get("run_name") or _run_id(meta))


def _experiment(path: Path) -> str:
    try:
        return str(read_yaml(path / _META).get("name") or "")
    except SourceError:
        return ""


def _metric(name: str, line: bytes) -> Metric | None:
    """Return the value of a line: milliseconds, value, and since 2018 a step."""
    parts = line.split()
    if not line.endswith(b"\n") or not 2 <= len(parts) <= 5:
        return None
    try:
        return name, float(parts[1]), int(parts[0]), int(parts[2]) if len(parts) > 2 else 0
    except (ValueError, OverflowError):
        return None


def _files(folder: Path, part: str) -> list[str]:
    """Return the files below a part of a run's folder, whose names may have slashes; links are left out."""
    found: list[str] = []
    left = [(folder / part, part, 0)]
    while left and len(found) < _MOST_FILES:
        path, prefix, depth = left.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        found.append(f"{prefix}/{entry.name}")
                    elif depth < _DEEPEST and entry.is_dir(follow_symlinks=False):
                        left.append((Path(entry.path), f"{prefix}/{entry.name}", depth + 1))
        except OSError:
            continue
    return sorted(found)
