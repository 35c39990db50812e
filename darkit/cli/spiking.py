"""The receipt of a spiking model on one page: ``darkit show NAME --spiking``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from darkit.errors import ConfigError
from darkit.runs import Run
from darkit.runs.inert import inert
from darkit.runs.outputs import fresh_output
from darkit.runs.spiking import (
    ENERGY,
    LAYERS,
    SYNAPSES,
    RecordedReceipt,
    RecordedTable,
    cell_text,
    firing_rates,
    is_text,
    read_receipt,
    spent_energy,
)

_TITLES = {LAYERS: "layers of neurons", SYNAPSES: "synapses, per sample", ENERGY: "energy, per sample"}
_MOST_ROWS = 12  # of the firing rate over time


def write_receipt(found: Run, output: Path, language: str, *, replace: bool) -> int:
    """Write the last receipt of a run as one page, and return its size in bytes.

    Raises:
        ConfigError: The run has none.
        RunExistsError: The file exists.
    """
    from darkit.dashboard.charts.receipt import receipt_page

    page = receipt_page(found, _receipt(found), language)
    with fresh_output(output, {}, replace=replace) as fresh:
        fresh.write_bytes(page)
    return len(page)


def print_receipt(found: Run, console: Console) -> None:
    """Print the last receipt of a run, and its firing rate over time.

    Raises:
        ConfigError: The run has none.
    """
    receipt = _receipt(found)
    console.print(Text(f"{found.name}, step {receipt.step}", "bold"), Text(found.model_class, "dim"))
    for key, title in _TITLES.items():
        if key in receipt.tables:
            table = receipt.tables[key]
            console.print()
            console.print(Text(title, "bold"), Text(inert(table.caption), "dim"))
            console.print(_drawn(table))
            if key == ENERGY and (sentence := _saving(table)):
                console.print(Text(sentence))
    if (history := _history(found)) is not None:
        console.print()
        console.print(Text("firing rate over time", "bold"))
        console.print(history)
    for medium in receipt.rasters:
        console.print(Text(f"{medium.key}: {found.path / 'media' / medium.file}", "dim"), soft_wrap=True)


def _receipt(found: Run) -> RecordedReceipt:
    receipt = read_receipt(found.path)
    if receipt is None:
        raise ConfigError(
            f"The run {found.name!r} has no spiking receipt: darkit.fit records one at every evaluation of a model "
            "whose neurons it knows, those of snntorch, spikingjelly and norse."
        )
    return receipt


def _drawn(table: RecordedTable) -> RenderableType:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    for name in table.columns:
        drawn.add_column(Text(inert(name)), justify="left" if is_text(name) else "right")
    for row in table.rows:
        drawn.add_row(*(Text(cell_text(name, cell)) for name, cell in zip(table.columns, row, strict=True)))
    return drawn


def _saving(table: RecordedTable) -> str:
    """Say in a sentence what the spikes save."""
    energy = spent_energy(table)
    if energy is None:
        return ""
    spent, dense = energy
    of_twin = f"{spent / dense:.1%} of the {dense:,.4g} nJ of the dense twin at the same time steps"
    return f"{spent:,.4g} nJ per sample, {of_twin}."


def _history(found: Run) -> RenderableType | None:
    """Return the firing rate of each layer over time, or None without columns."""
    rates = {name: dict(points) for name, points in firing_rates(found).items()}
    if not rates:
        return None
    steps = list(list(rates.values())[-1])
    every = max(1, -(-len(steps) // _MOST_ROWS))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("step", *rates):
        table.add_column(Text(inert(name)), justify="right")
    for step in [*steps[:-1:every], steps[-1]]:
        cells = (rates[name].get(step) for name in rates)
        table.add_row(str(step), *("" if cell is None else f"{cell:.2%}" for cell in cells))
    return table
