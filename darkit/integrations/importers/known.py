"""Runs that were imported before: which one a source has become, by the origin in its ``run.json``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from darkit.integrations.importers.imported import Source
from darkit.runs import list_runs
from darkit.runs.run import Run

ORIGIN = "origin"


@dataclass(frozen=True)
class _Origin:
    run: Run
    kind: str
    path: str
    identity: str
    digest: str


class KnownRuns:
    """The imported runs of a root.

    Args:
        root: Where the runs are.
    """

    def __init__(self, root: Path) -> None:
        self._origins = [found for run in list_runs(root=root) if (found := _origin(run)) is not None]

    def find(self, source: Source, digest: str) -> tuple[Run, bool] | None:
        """Return the run that a source has become, and whether the source is still the same; None if it is new.

        A log that was moved since is recognised by its digest; a copy beside the original is a log of its own.
        """
        alike = [one for one in self._origins if (one.kind, one.identity) == (source.kind, source.identity)]
        for one in alike:
            if one.path == str(source.path):
                return one.run, one.digest == digest
        for one in alike:
            if one.digest == digest and not os.path.lexists(one.path):
                return one.run, True
        return None

    def add(self, run: Run) -> None:
        """Add a run that was just imported."""
        found = _origin(run)
        if found is not None:
            self._origins = [one for one in self._origins if one.run != run] + [found]


def _origin(run: Run) -> _Origin | None:
    origin = run.origin
    if not origin:
        return None
    texts = [origin.get(name, "") for name in ("kind", "path", "identity", "digest")]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        return None
    return _Origin(run, *texts)
