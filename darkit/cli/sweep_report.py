"""What ``darkit sweep`` prints: a line for each event, and a table of the trials at the end."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from darkit.cli.final_report import darkit_command
from darkit.cli.parsers import output
from darkit.runs import Run, base
from darkit.runs.inert import inert
from darkit.sweep.folder import TRIALS, Definition
from darkit.sweep.objective import value_of
from darkit.sweep.progress import COLUMNS, best_trial

_MOST_ROWS = 20


def tell_trials(trials: int) -> Any:
    """Return what prints a line for each event."""
    console = output()

    def tell(number: int, row: Mapping[str, str]) -> None:
        values = " ".join(f"{key}={value}" for key, value in row.items() if key not in COLUMNS)
        shown = row.get("reason") or f"{row['objective'] or 'nan':<22} {values}"
        text = f"trial {number:>{len(str(trials))}} of {trials}  {row['state']:<9} {shown}"
        console.print(inert(text), markup=False, highlight=False, soft_wrap=True)

    return tell


def report(definition: Definition, progress: Any, trials: Sequence[Any]) -> None:
    """Print the table of the trials, best first, and how to train the best one again."""
    if not trials:
        return
    console = output()
    sign = -1 if definition.direction == "max" else 1
    rows = [(trial, progress.row(trial)) for trial in trials]
    order = {"finished": 0, "pruned": 1, "paused": 1}
    rows.sort(
        key=lambda pair: (
            order.get(pair[1]["state"], 2),
            sign * float(pair[1]["objective"]) if pair[1]["objective"] else 0.0,
            pair[0].number,
        )
    )
    keys = [key for key in rows[0][1] if key not in COLUMNS]
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "state", "step", definition.objective, *keys, "runs"):
        table.add_column(Text(inert(column)), overflow="fold")  # text: brackets are no markup
    for trial, row in rows[:_MOST_ROWS]:
        shown = _number(row["objective"])
        cells = (str(trial.number), row["state"], row["step"], shown, *(row[key] for key in keys), row["runs"])
        table.add_row(*(Text(inert(cell)) for cell in cells))
    console.print(table)
    if len(rows) > _MOST_ROWS:
        print(f"and {len(rows) - _MOST_ROWS} more in {progress.folder.path / TRIALS}")
    best = best_trial(trials, definition.direction)
    if best is None:
        return
    told = progress.describe(best)
    if definition.seeds:
        print(inert(_spread(definition, best)))
    print(f"best: trial {best.number}, {definition.objective} {_number(repr(best.value))}; train it again with")
    print(f"  {darkit_command()} train {shlex.join(told['words'])}")
    print(f"in {progress.folder.path}")


def _spread(definition: Definition, trial: Any) -> str:
    """Return mean and standard deviation of the objective over the seeds of a trial."""
    names = trial.user_attrs["runs"]
    runs = [run for name in names if (run := Run(base() / name)).path.exists()]  # one may have been removed
    if not runs:
        return f"{definition.objective}: the runs of all {len(names)} seeds have been removed"
    values = [value_of(run, definition.settings.objective, definition.direction) for run in runs]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    each = ", ".join(_number(repr(value)) for value in values)
    return (
        f"{definition.objective}: mean {_number(repr(statistics.fmean(values)))} ± {_number(repr(deviation))} over "
        f"{len(values)} seeds ({each})" + (f"; {removed} removed" if (removed := len(names) - len(runs)) else "")
    )


def _number(text: str) -> str:
    return f"{float(text):.6g}" if text else ""
