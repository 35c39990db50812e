"""What the tests of importers share."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darkit.cli.main import main
from darkit.integrations.importers.known import KnownRuns
from darkit.integrations.importers.recognise import find_sources
from darkit.integrations.importers.writer import Outcome, import_source
from darkit.runs import Run, base, list_runs

Points = dict[str, list[tuple[int, Any]]]  # name -> (step, value), lowest step first


def imported(path: Path, **options: Any) -> list[Outcome]:
    """Import everything below a path, as the command does."""
    known = KnownRuns(base())
    return [import_source(source, base(), known, **options) for source in find_sources(path).sources]


def command(*words: object) -> int:
    return main(["import", *map(str, words)])


def only_run() -> Run:
    (run,) = list_runs()
    return run


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Return each file's content and time of change, and the folders."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def points(run: Run, names: Iterable[str] | None = None) -> Points:
    """Return the values of the log's columns, without step and time."""
    log = run.log()
    found: Points = {}
    for name in names or [column for column in log.columns if column not in ("step", "time")]:
        rows = log.select("step", name).drop_nulls().rows()
        found[name] = [(int(step), comparable(value)) for step, value in rows]
    return found


def expected(values: Mapping[str, Iterable[tuple[int, Any]]]) -> Points:
    return {
        name: sorted(((step, comparable(value)) for step, value in found), key=lambda one: one[0])
        for name, found in values.items()
    }


def by_name(rows: Iterable[tuple[str, int, Any]]) -> Points:
    found: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for name, step, value in rows:
        found[name].append((step, value))
    return expected(found)


def comparable(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
