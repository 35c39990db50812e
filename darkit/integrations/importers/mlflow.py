"""A run of MLflow, from whichever of its stores: what both readers have in common."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.integrations.importers.imported import Imported, ImportedMedium
from darkit.integrations.importers.reading import read_document
from darkit.integrations.importers.rows import Rows, column_name
from darkit.runs.media import LARGEST
from darkit.runs.media_content import ending_of
from darkit.runs.safe import is_strange

Metric = tuple[str, float, float, int]  # name, value, milliseconds since 1970, step
_STATES = {"FINISHED": "finished", "FAILED": "crashed", "KILLED": "stopped"}
_NUMBERS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_SYSTEM = "system/"
_OWN = "mlflow."
_IMAGE = re.compile(r"(.+?)[+%]step[+%](\d{1,15})[+%]timestamp[+%](\d{1,15})[+%][0-9a-f-]+\.png")
_MOST_IMAGES = 200_000


@dataclass
class StoredRun:
    """A run as a store has it.

    Attributes:
        run_id: MLflow's id.
        name: Its name there.
        experiment: The experiment's name.
        status: MLflow's word or number for its state.
        start: Milliseconds since 1970.
        end: Likewise, or None.
        user: Who ran it.
        metrics: In the order in which they were logged.
        params: The parameters, which MLflow keeps as texts.
        tags: Its own tags, and those of MLflow, which begin with ``mlflow.``.
        images: The folder with the images that were logged with a key and a step.
        problems: What could not be read.
    """

    run_id: str
    name: str
    experiment: str = ""
    status: Any = ""
    start: Any = None
    end: Any = None
    user: str = ""
    metrics: Sequence[Metric] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    problems: list[str] = field(default_factory=list)

    def imported(self) -> Imported:
        """Return the run as every reader returns one."""
        rows, system = Rows(), dict[tuple[int, float], dict[str, Any]]()
        last = 0.0
        for name, value, moment, step in self.metrics:
            last = max(last, moment / 1000)
            if name.startswith(_SYSTEM):
                row = system.setdefault((step, moment), {"time": moment / 1000, "step": step})
                row[name.replace("/", ".")] = value
            else:
                rows.add(step, {name: value}, moment / 1000)
        status = _NUMBERS.get(self.status, self.status)
        source, commit = (self.tags.get(f"{_OWN}source.{key}", "") for key in ("name", "git.commit"))
        own = {name: value for name, value in self.tags.items() if not name.startswith(_OWN)}
        return Imported(
            rows=rows,
            config={name: _parsed(value) for name, value in self.params.items()},
            media=self._media,
            state=_STATES.get(status, "unknown"),
            reason="" if status == "FINISHED" else f"MLflow says that it is {status or 'of no state'}.",
            started=_seconds(self.start),
            ended=_seconds(self.end) or last or _seconds(self.start),
            tags=[f"{name}={value}" if value else name for name, value in own.items()],
            note=self.tags.get(f"{_OWN}note.content", ""),
            facts={
                "run_id": self.run_id,
                "experiment": self.experiment,
                "user": self.user,
                **({"parent": self.tags[f"{_OWN}parentRunId"]} if f"{_OWN}parentRunId" in self.tags else {}),
            },
            provenance={
                **({"command": [source]} if source else {}),
                **({"git": {"commit": commit, "diff": ""}} if commit else {}),
            },
            system=list(system.values()),
            problems=self.problems,
        )

    def _media(self) -> Iterator[ImportedMedium]:
        for name in image_names(self.images):
            match = _IMAGE.fullmatch(name)
            if match is None or self.images is None:
                continue
            key = column_name(match[1].replace("~", "/").replace("#", "/"))
            data = read_document(self.images / name, LARGEST)
            yield ImportedMedium("image", key, int(match[2]), data, ending_of(data), int(match[3]) / 1000)


def image_names(folder: Path | None) -> list[str]:
    """Return the names of the images in a run's folder, in the order of their steps."""
    if folder is None or is_strange(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    known = [(match, name) for name in names if (match := _IMAGE.fullmatch(name))]
    return [name for _, name in sorted(known, key=lambda one: (int(one[0][2]), int(one[0][3]), one[1]))][:_MOST_IMAGES]


def _parsed(text: str) -> Any:
    """Return the number or boolean that a text stands for if it is its text again, else the text."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            continue
        if str(value) == text and math.isfinite(value):
            return value
    return text


def _seconds(milliseconds: Any) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) and 0 < milliseconds < 1e16 else 0.0
