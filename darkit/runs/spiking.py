"""The receipt of a spiking model among the media of its run, by the names it is logged under."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.errors import MediaError
from darkit.runs.inert import inert
from darkit.runs.media import Medium, read_media, read_medium
from darkit.runs.run import Run
from darkit.runs.safe import finite_number

LAYERS, SYNAPSES, ENERGY, RASTER = "spiking/layers", "spiking/synapses", "spiking/energy", "spiking/raster"
_SHARES = ("firing rate", "dead", "saturated")
_NAMES = ("layer", "class", "module", "operation")
_RATE = "firing_rate"
SOURCE = "45 nm, 32-bit floating point: Horowitz, Computing's energy problem, ISSCC 2014."


@dataclass(frozen=True)
class RecordedTable:
    """A table of a receipt, as it is in the run: untrusted.

    Attributes:
        columns: The names of its columns.
        rows: Its rows, each as long as ``columns``.
        caption: Text shown with it.
    """

    columns: list[str]
    rows: list[list[Any]]
    caption: str


@dataclass(frozen=True)
class RecordedReceipt:
    """The last receipt of a run.

    Attributes:
        step: The step it was measured at.
        tables: Its tables that can be read, by their names.
        rasters: Its rasters.
    """

    step: int
    tables: dict[str, RecordedTable]
    rasters: list[Medium]


def read_receipt(folder: Path) -> RecordedReceipt | None:
    """Return the last receipt in a run directory, or None."""
    media = read_media(folder)
    step = max((medium.step for medium in media if medium.key == LAYERS), default=None)
    if step is None:
        return None
    of_step = {medium.key: medium for medium in media if medium.step == step}
    tables = {}
    for key in (LAYERS, SYNAPSES, ENERGY):
        medium = of_step.get(key)
        table = _table(folder, medium) if medium is not None and medium.kind == "table" else None
        if table is not None:
            tables[key] = table
    return RecordedReceipt(step, tables, [one for key, one in of_step.items() if key.startswith(f"{RASTER}/")])


def _table(folder: Path, medium: Medium) -> RecordedTable | None:
    try:
        content = json.loads(read_medium(folder, medium))
        columns, rows = content["columns"], content["rows"]
        if all(isinstance(row, list) and len(row) == len(columns) for row in rows):
            return RecordedTable([str(name) for name in columns], rows, medium.caption)
    except (MediaError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def is_text(column: str) -> bool:
    """Return whether a column of a receipt has names rather than numbers."""
    return column in _NAMES


def cell_text(column: str, cell: Any) -> str:
    """Return a cell of a receipt as text: shares in percent, and numbers with their significant digits."""
    number = finite_number(cell)
    if number is None:
        return "" if cell is None else inert(str(cell))
    if column in _SHARES:
        return f"{number:.2%}"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.4g}"


def spent_energy(table: RecordedTable) -> tuple[float, float] | None:
    """Return the energy per sample of the model and of its dense twin in nanojoules, or None if it is not there."""
    last = table.rows[-1] if table.rows else []
    spent, dense = (finite_number(cell) for cell in last[-2:]) if len(last) > 1 else (None, None)
    return (spent, dense) if spent is not None and dense and spent >= 0 < dense else None


def firing_rates(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return the firing rate by layer, and of all layers, as points (step, rate) of the log; empty without columns."""
    log = run.log()
    found: dict[str, list[tuple[int, float]]] = {}
    if "step" not in log.columns or not log["step"].dtype.is_numeric():
        return found
    for name in log.columns:
        if name.startswith(_RATE) and log[name].dtype.is_numeric():
            points = [(step, rate) for step, rate in log.select("step", name).rows() if None not in (step, rate)]
            points = [point for point in points if all(map(math.isfinite, point))]
            found |= {name.removeprefix(f"{_RATE}_"): points} if points else {}
    return found
