"""Exports: the points of a chart as CSV, and a comparison as one page that needs no server."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache

import numpy as np

from darkit.dashboard.charts import plotly
from darkit.dashboard.charts.charts import Charts, curve, heading
from darkit.dashboard.charts.colours import colour, dash
from darkit.dashboard.charts.compare import value_rows
from darkit.dashboard.charts.configs import config_rows
from darkit.dashboard.charts.curves import clock_offset, position_of
from darkit.dashboard.charts.groups import placed_groups
from darkit.dashboard.charts.panels import Panel, panels_of
from darkit.dashboard.charts.shown import Shown
from darkit.dashboard.reading.columns import Numbers
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.series import lost_at
from darkit.dashboard.reading.sessions import active_seconds, began
from darkit.dashboard.reading.zones import zone_of
from darkit.dashboard.texts import duration_text, text
from darkit.dashboard.texts.en import ENGLISH
from darkit.dashboard.view import View
from darkit.runs.numbers import LOST_MARK, number_text
from darkit.runs.safe import as_dict

_LATEST = 4e9  # Unix seconds
_AT_ONCE = 5_000  # rows written at a time
_X_NAMES = {"wall": "time", "relative": "seconds"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SVG_DASHES = {"solid": "none", "dash": "8 4", "dot": "3 4", "dashdot": "8 3 3 3"}
STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:24px auto;max-width:1360px;padding:0 16px;color:#212529}
h1{font-size:20px}h2{font-size:16px;margin-top:28px;overflow-wrap:anywhere}.chart{height:340px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:3px 12px;border-bottom:1px solid #dee2e6;
text-align:left;white-space:nowrap}td.number,th.number{text-align:right}tr>:first-child{position:sticky;left:0;
background:#fff}.best{font-weight:700;color:#1e7030}.bad{color:#c92a2a}.wide{overflow-x:auto}
.differs td{background:#fff9db}.legend{display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:12px 0;list-style:none}
.legend svg,td svg,th svg{margin-right:8px;vertical-align:middle}
.reason{min-width:200px;max-width:420px;white-space:normal;overflow-wrap:anywhere}
@media screen and (max-width:700px){tr>:first-child{min-width:110px;max-width:48vw;white-space:normal;
overflow-wrap:break-word}}
@page{margin:14mm}
@media print{body{margin:0;max-width:none;padding:0;font-size:11px}.wide{overflow:visible}section,tr{break-inside:avoid}
h2{break-after:avoid}td,th{white-space:normal;overflow-wrap:anywhere;padding:2px 6px}.chart{height:260px}
tr>:first-child{position:static}}
"""
_PAPER = 680  # pixels between the margins of a sheet of A4
_SCRIPT = f"""
for (const [id, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent)))
  Plotly.newPlot(document.getElementById(id), figure.data, figure.layout, {{displaylogo: false, responsive: true}});
const charts = [...document.querySelectorAll(".chart")];
addEventListener("beforeprint", () => charts.forEach((one) => Plotly.relayout(one, {{width: {_PAPER}, height: 260}})));
addEventListener("afterprint", () => charts.forEach((one) => Plotly.relayout(one, {{width: null, height: null}})));
"""


def chart_csv(chart: str, shown: Sequence[Shown], view: View) -> Iterator[str]:
    """Yield all points of a chart as CSV: run, x, y; neither thinned nor smoothed.

    A chart of several series has their names in a column after the run's. On the clock axis x is the Unix time in
    seconds, whatever the reader's time zone.
    """
    panel = next((one for one in panels_of(shown, view) if one.id == chart), Panel(chart, (chart,)))
    drawn = [(run, title) for run in shown for title in panel.members if title in run.series]
    several = len(panel.members) > 1
    own = next((run.series[title][0] for run, title in drawn), view.axis)
    x_name = view.x or (own if view.axis == "step" else _X_NAMES.get(view.axis, view.axis))
    heads = ["series", "value"] if several else [harmless(chart)]
    yield _csv_lines([["run", *heads[:-1], harmless(readable(x_name)), heads[-1]]])
    for run, title in drawn:
        names = [harmless(run.facts.name), *([harmless(readable(title))] if several else [])]
        if title in run.evaluated:
            points = curve(run, title, view)
            places, values = np.append(points.x, points.odd_x), np.append(points.y, points.odd_y)
            order = np.argsort(places, kind="stable")
            if view.axis == "wall" and not view.x:  # on the chart: milliseconds of the reader's clock
                places = (places - clock_offset(run.table, view)) / 1000
            yield _csv_lines(_rows(names, places[order], values[order]))
            continue
        y = run.table.column(run.series[title][1])
        clock = view.axis == "wall" and not view.x
        x = (
            run.table.column("time")
            if clock
            else position_of(run.table, run.series[title][0], view, resumed=run.resumed)
        )
        if x is None or y is None:
            continue
        odd = run.table.odd(run.series[title][1])
        given = (y == y) | odd  # a field that was not empty, be it NaN
        for start in range(0, len(y), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            yield _csv_lines(_rows(names, x[part][given[part]], y[part][given[part]]))


def _rows(names: Sequence[str], x: Numbers, y: Numbers) -> list[list[str]]:
    return [[*names, _number(left), _number(right)] for left, right in zip(x.tolist(), y.tolist(), strict=True)]


def harmless(value: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def comparison_page(charts: Charts, names: Sequence[str], view: View) -> bytes:
    """Return one HTML file with the charts and tables of a comparison; it needs no server and requests nothing."""
    shown = charts.chosen(names, view.source)
    light = View(**{**view.__dict__, "dark": False})
    panels = panels_of(shown, light)
    figures = {f"chart-{index}": charts.figure(panel, shown, light) for index, panel in enumerate(panels)}
    blocks = [
        f'<section><h2>{html.escape(heading(panel, light))}</h2><div class="chart" id="chart-{index}"></div></section>'
        for index, panel in enumerate(panels)
    ]
    name = html.escape(text(view.language, "compare_title", count=len(shown)))
    data = json.dumps(figures).replace("<", "\\u003c")
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    page = f"""<!doctype html>
<html lang="{view.language}"><head><meta charset="utf-8"><title>{name}</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{name}</h1>{_legend(shown, light)}{_runs_table(shown, light)}
<h2>{html.escape(text(view.language, "values"))}</h2>{_values_table(shown, view.language)}
<h2>{html.escape(text(view.language, "configs"))}</h2>{_config_table(shown, view.language)}{"".join(blocks)}
<script>{_plotly()}</script><script type="application/json" id="figures">{data}</script><script>{_SCRIPT}</script>
</body></html>"""
    return page.encode("utf-8", "replace")


def _legend(shown: Sequence[Shown], view: View) -> str:
    """Return which line belongs to which run or group."""
    named = [(index, f"{label} ({len(members)})") for index, label, members in placed_groups(shown, view)]
    named = named or [(run.index, run.facts.name) for run in shown]
    items = "".join(f"<li>{_swatch(index)}{html.escape(name)}</li>" for index, name in named)
    return f'<ul class="legend">{items}</ul>'


def _swatch(index: int) -> str:
    dashes = _SVG_DASHES[dash(index)]
    line = f'<line x1="0" y1="4" x2="26" y2="4" stroke="{colour(index)}" stroke-width="3" stroke-dasharray="{dashes}"/>'
    return f'<svg width="26" height="8" aria-hidden="true">{line}</svg>'


def _runs_table(shown: Sequence[Shown], view: View) -> str:
    """Return what each run is: its state and step, when it was started, how long it took, and from which commit."""
    keys = (
        "col_state",
        "col_progress",
        "col_started",
        "col_duration",
        "col_model",
        "git_commit",
        "col_tags",
        "col_note",
    )
    head = "".join(f"<th>{html.escape(text(view.language, key))}</th>" for key in ("col_name", *keys))
    zone = zone_of(view.zone, view.offset)
    body = []
    for run in shown:
        facts, status = run.facts, run.facts.status
        lost = lost_at(facts, run.table)
        known = f"state_{facts.state}" in ENGLISH
        state = text(view.language, f"state_{facts.state}") if known else facts.state
        if lost:
            state += f", {text(view.language, 'diverged_at', step=f'{lost[1]:,.0f}')}"
        said = f'<div class="reason">{html.escape(readable(status.reason)[:300])}</div>' if status.reason else ""
        start, seconds = began(facts), active_seconds(facts, run.table)
        git = as_dict(facts.info.get("git"))
        cells = (
            f"{status.step:,}" + (f" / {status.max_step:,}" if status.max_step else ""),
            f"{datetime.fromtimestamp(start, zone):%Y-%m-%d %H:%M}" if 0 < start < _LATEST else "",
            duration_text(view.language, seconds) if seconds is not None and seconds < _LATEST else "",
            readable(facts.model),
            readable(str(git.get("commit") or ""))[:12] + (" +diff" if git.get("diff") else ""),
            ", ".join(readable(tag) for tag in facts.notes.tags),
        )
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        note = f'<td class="reason">{html.escape(readable(facts.notes.note)[:2000])}</td>'
        name = f"<td>{_swatch(run.index)}{html.escape(facts.name)}</td>"
        body.append(f"<tr>{name}<td>{html.escape(state)}{said}</td>{row}{note}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _values_table(shown: Sequence[Shown], language: str) -> str:
    names, rows, best = value_rows(shown)
    columns = zip(*(row.values for row in rows), strict=True)
    ranked = [any(value is not None and value.ranked for value in column) for column in columns]
    head = "".join(
        f'<th class="number">{html.escape(name)} · {html.escape(text(language, word))}</th>'
        for name, both in zip(names, ranked, strict=True)
        for word in ("last", "best")[: 1 + both]
    )
    body = []
    for place, row in enumerate(rows):
        lost = "" if row.diverged is None else text(language, "diverged_at", step=f"{row.diverged:,.0f}")
        said = f' <span class="bad">{html.escape(lost)}</span>' if lost else ""
        cells = [f"<td>{_swatch(row.shown.index)}{html.escape(row.shown.facts.name)}{said}</td>"]
        for index, value in enumerate(row.values):
            last, top = (number_text(value.last), number_text(value.best)) if value else ("", "")
            top += LOST_MARK if top and lost else ""
            marked = " best" if best[index] == place else ""
            cells.append(f'<td class="number">{last}</td>' + f'<td class="number{marked}">{top}</td>' * ranked[index])
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(body)}</table></div>'


def _config_table(shown: Sequence[Shown], language: str) -> str:
    head = "".join(f"<th>{_swatch(run.index)}{html.escape(run.facts.name)}</th>" for run in shown)
    body = "".join(
        f"<tr{' class=differs' if row.differs else ''}><td>{html.escape(row.key)}</td>"
        + "".join(f"<td>{html.escape(value)}</td>" for value in row.values)
        + "</tr>"
        for row in config_rows(shown)
    )
    return f'<div class="wide"><table><tr><th>{html.escape(text(language, "key"))}</th>{head}</tr>{body}</table></div>'


def _csv_lines(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


@cache
def _plotly() -> str:
    return plotly.SCRIPT.read_text(encoding="utf-8").replace("</script", "<\\/script")
