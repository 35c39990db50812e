"""A run as a piece of HTML, as a notebook shows it: its state, its last values and a small chart."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from darkit.runs.best import LOSS, best_value, known_mode
from darkit.runs.inert import inert
from darkit.runs.numbers import LOST_MARK, number_text

if TYPE_CHECKING:
    import polars

    from darkit.runs.status import Status

_MOST_METRICS = 12  # rows of the table
_LONGEST = 300  # characters of a text from the run
_POSITIONS = ("step", "epoch", "time")  # columns that say where a row is
_WIDTH, _HEIGHT = 420, 110  # of the chart, in pixels
_COLOURS = ("#4c6ef5", "#f76707")
_STATE_COLOURS = {
    "running": "#2f9e44",
    "finished": "#4c6ef5",
    "stopped": "#a17a00",
    "crashed": "#e03131",
    "stalled": "#be4bdb",
}


@dataclass(frozen=True)
class Metric:
    """A metric of a run: its name, its x and y column, and its last and best value."""

    name: str
    columns: tuple[str, str]
    last: float
    best: float | None
    lost: float | None = None  # where it became NaN or infinite and stayed so, if it is a loss or declared


def run_html(
    name: str,
    details: Status,
    log: polars.DataFrame | None,
    series: Mapping[str, Sequence[str]],
    trainer: Mapping[str, Any],
    problem: str = "",
) -> str:
    """Return a run as HTML, with all of its texts escaped.

    Args:
        name: The run's name.
        details: Its status.
        log: Its log, or None where it cannot be read.
        series: The series that it declares.
        trainer: The trainer's config, which says of what the best value is the lowest.
        problem: Why the log cannot be read, or empty.
    """
    metrics = [] if log is None else metrics_of(log, series, trainer)
    colour = _STATE_COLOURS.get(details.state, "#868e96")
    step = f"step {details.step:,}" + (f" of {details.max_step:,}" if details.max_step else "")
    known = [float(details.diverged)] if details.diverged is not None else []
    first = min((one.lost for one in metrics if one.lost is not None), default=None)
    diverged = min([*known, *([] if first is None else [first])], default=None)
    lost = "" if diverged is None else f" · diverged at step {diverged:,.0f}"
    state = f'<span style="color:{colour}">● {_text(details.state)}</span>'
    parts = [
        '<div style="font:13px/1.5 system-ui,sans-serif;max-width:640px">',
        f"<div><b>{_text(name)}</b> {state} · {step}{lost}</div>",
    ]
    parts += [f'<div style="opacity:.75">{_text(said)}</div>' for said in (details.reason, problem) if said]
    if log is not None and metrics:
        parts += [_chart(log, metrics), _table(metrics, diverged=diverged is not None)]
    return "".join([*parts, "</div>"])


def metrics_of(log: polars.DataFrame, series: Mapping[str, Sequence[str]], trainer: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics of a log that have a number: the declared series first, then every other numeric column."""
    import polars

    x = "step" if "step" in log.columns or not log.columns else log.columns[0]
    chosen = {name: (columns[0], columns[1]) for name, columns in series.items()}
    shown = {*(y for _, y in chosen.values()), x, *_POSITIONS}
    chosen |= {name: (x, name) for name in log.columns if name not in shown and name not in chosen}
    found = []
    for name, columns in chosen.items():
        if not all(column in log.columns and _column(log, column).dtype.is_numeric() for column in columns):
            continue
        values = _column(log, columns[1]).drop_nulls().cast(polars.Float64)
        if len(values):
            mode, finite = known_mode(trainer, name, columns[1]), values.filter(values.is_finite())
            ends = cast("list[float]", [finite.min(), finite.max()] if len(finite) else [])
            best = best_value(ends, mode) if mode else None
            counts = name in series or LOSS.search(name) is not None
            lost = _lost_at(log, x, columns[1]) if counts and not math.isfinite(values[-1]) else None
            found.append(Metric(name, columns, values[-1], best, lost))
    return found


def _lost_at(log: polars.DataFrame, x: str, y: str) -> float | None:
    """Return where a column is NaN or infinite for the first time after its last number; None where x is no number."""
    import polars

    at = _column(log, x).cast(polars.Float64, strict=False)
    both = polars.DataFrame({"x": at, "y": _column(log, y).cast(polars.Float64)}).drop_nulls("y")
    places = both["y"].is_finite().arg_true()
    step = both["x"][places[-1] + 1 if len(places) else 0]
    return step if step is not None and math.isfinite(step) else None


def _table(metrics: Sequence[Metric], *, diverged: bool) -> str:
    cell = 'style="text-align:right;padding:1px 10px"'
    name_cell = 'style="text-align:left;padding:1px 10px 1px 0"'
    rows = [
        f"<tr><td {name_cell}>{_text(one.name)}</td><td {cell}>{number_text(one.last)}</td>"
        f"<td {cell}>{number_text(one.best)}{LOST_MARK if diverged and one.best is not None else ''}</td></tr>"
        for one in metrics[:_MOST_METRICS]
    ]
    left = len(metrics) - _MOST_METRICS
    more = f'<div style="opacity:.75">and {left:,} more metrics</div>' if left > 0 else ""
    head = f"<tr><th {name_cell}></th><th {cell}>last</th><th {cell}>best</th></tr>"
    return f'<table style="border-collapse:collapse;font:inherit">{head}{"".join(rows)}</table>{more}'


def _chart(log: polars.DataFrame, metrics: Sequence[Metric]) -> str:
    """Draw the losses of a run, or else its first metric, as inline SVG."""
    losses = [one for one in metrics if "loss" in one.name.lower()]
    shown = (losses or list(metrics))[: len(_COLOURS)]
    curves = [curve for one in shown if len(curve := _points(log, one.columns))]
    if not curves:
        return ""
    xs = [x for curve in curves for x, _ in curve]
    ys = [y for curve in curves for _, y in curve]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> str:
        across, up = _share(x, left, right), _share(y, low, high)
        return f"{2 + across * (_WIDTH - 4):.1f},{2 + (1 - up) * (_HEIGHT - 4):.1f}"

    lines = []
    for curve, colour in zip(curves, _COLOURS, strict=False):
        if len(curve) == 1:
            x, y = place(*curve[0]).split(",")
            lines.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        else:
            points = " ".join(place(*point) for point in curve)
            lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{points}"/>')
    legend = " ".join(
        f'<span style="color:{colour}">— {_text(one.name)}</span>' for one, colour in zip(shown, _COLOURS, strict=False)
    )
    scale = f"{low:.4g} to {high:.4g}, {_text(shown[0].columns[0])} {left:.6g} to {right:.6g}"
    frame = f'<rect x=".5" y=".5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" fill="none" stroke="currentColor"'
    return (
        f'<div>{legend} <span style="opacity:.75">{scale}</span></div>'
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{_text(", ".join(one.name for one in shown))}">'
        f'{frame} stroke-opacity=".25"/>{"".join(lines)}</svg>'
    )


def _column(log: polars.DataFrame, name: str) -> polars.Series:
    """Return a column under a plain name: polars takes one such as ``^.*$`` for a pattern of several."""
    return log.get_column(name).alias("values")


def _share(value: float, low: float, high: float) -> float:
    """Return where a value is between two others, from 0 to 1; in the middle if these are the same."""
    span = high / 2 - low / 2  # the difference may be too large
    return (value / 2 - low / 2) / span if span > 0 else 0.5


def _points(log: polars.DataFrame, columns: tuple[str, str]) -> list[tuple[float, float]]:
    """Return the finite points of a curve; of a long one the lowest and the highest of each pixel, so peaks stay."""
    import polars

    both = polars.DataFrame(
        [_column(log, column).cast(polars.Float64).alias(axis) for column, axis in zip(columns, "xy", strict=True)]
    )
    both = both.drop_nulls().filter(polars.all_horizontal(polars.all().is_finite()))
    if both.height <= 4 * _WIDTH:
        return both.rows()
    both = both.with_columns((polars.int_range(polars.len()) * _WIDTH // polars.len()).alias("pixel"))
    x, y = polars.col("x"), polars.col("y")
    ends = both.group_by("pixel", maintain_order=True).agg(
        x.get(y.arg_min()).alias("x_low"),
        y.min().alias("low"),
        x.get(y.arg_max()).alias("x_high"),
        y.max().alias("high"),
    )
    rows = ends.select("x_low", "low", "x_high", "high").rows()
    return [point for x_low, low, x_high, high in rows for point in sorted([(x_low, low), (x_high, high)])]


def _text(text: str) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return html.escape(inert(shown).encode("utf-8", "replace").decode())
