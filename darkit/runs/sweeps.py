"""Which sweep a run belongs to: the sweep finds its runs by name, so a run keeps its name while the sweep exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darkit.runs import files
from darkit.runs.names import is_name
from darkit.runs.safe import as_dict

SWEEPS = "sweeps"  # the folder in the home that has one folder for each sweep


def sweep_of(folder: Path) -> str:
    """Return the name of the sweep that a run belongs to, if its folder exists beside the runs; or nothing."""
    name: Any = as_dict(files.read_json(folder / files.RUN).get("sweep")).get("name")
    known = isinstance(name, str) and is_name(name) and (folder.parents[1] / SWEEPS / name).is_dir()
    return name if known else ""
