"""Exports: the points of a chart as CSV, and a comparison as one page that needs no server."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Sequence
from functools import cache

from darkit.dashboard.charts import plotly
from darkit.dashboard.charts.charts import Charts, Shown, titles_of
from darkit.dashboard.charts.compare import config_rows, value_rows
from darkit.dashboard.charts.curves import position_of
from darkit.dashboard.charts.figures import colour
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.texts import text
from darkit.dashboard.view import View

_AT_ONCE = 5_000  # rows written at a time
_X_NAMES = {"wall": "time", "relative": "seconds"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:24px auto;max-width:1200px;padding:0 16px;color:#212529}
h1{font-size:20px}h2{font-size:16px;margin-top:28px;overflow-wrap:anywhere}.chart{height:340px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:3px 10px;border-bottom:1px solid #dee2e6;
text-align:left;overflow-wrap:anywhere}.best{font-weight:700;color:#2b8a3e}.dot{display:inline-block;width:10px;
height:10px;border-radius:50%;margin-right:6px}.wide{overflow-x:auto}.differs td{background:#fff9db}
"""
_SCRIPT = """
for (const [id, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent)))
  Plotly.newPlot(document.getElementById(id), figure.data, figure.layout, {displaylogo: false, responsive: true});
"""


def chart_csv(title: str, shown: Sequence[Shown], view: View) -> Iterator[str]:
    """Yield all points of a chart as CSV: run, x, y; neither thinned nor smoothed.

    On the clock axis x is the Unix time in seconds, whatever the reader's time zone.
    """
    runs = [run for run in shown if title in run.series]
    x_name = runs[0].series[title][0] if view.axis == "step" and runs else _X_NAMES.get(view.axis, view.axis)
    yield _csv_lines([["run", harmless(readable(x_name)), harmless(title)]])
    for run in runs:
        name, y = harmless(run.facts.name), run.table.column(run.series[title][1])
        x = run.table.column("time") if view.axis == "wall" else position_of(run.table, run.series[title][0], view)
        if x is None or y is None:
            continue
        odd = run.table.odd(run.series[title][1])
        given = (y == y) | odd  # a field that was not empty, be it NaN
        for start in range(0, len(y), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            kept = given[part]
            pairs = zip(x[part][kept].tolist(), y[part][kept].tolist(), strict=True)
            yield _csv_lines([[name, _number(left), _number(right)] for left, right in pairs])


def harmless(value: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def comparison_page(charts: Charts, names: Sequence[str], view: View) -> bytes:
    """Return one HTML file with the charts and tables of a comparison; it needs no server and requests nothing."""
    shown = charts.chosen(names, view.source)
    light = View(**{**view.__dict__, "dark": False})
    titles = titles_of(shown)
    figures = {f"chart-{index}": charts.figure(title, shown, light) for index, title in enumerate(titles)}
    blocks = [
        f'<h2>{html.escape(readable(title))}</h2><div class="chart" id="chart-{index}"></div>'
        for index, title in enumerate(titles)
    ]
    heading = html.escape(text(view.language, "compare_title", count=len(shown)))
    data = json.dumps(figures).replace("<", "\\u003c")
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    page = f"""<!doctype html>
<html lang="{view.language}"><head><meta charset="utf-8"><title>{heading}</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>{heading}</h1>{_values_table(shown, view.language)}{"".join(blocks)}
<h2>{html.escape(text(view.language, "configs"))}</h2>{_config_table(shown, view.language)}
<script>{_plotly()}</script><script type="application/json" id="figures">{data}</script><script>{_SCRIPT}</script>
</body></html>"""
    return page.encode("utf-8", "replace")


def _values_table(shown: Sequence[Shown], language: str) -> str:
    names, rows, best = value_rows(shown)
    head = "".join(
        f"<th>{html.escape(name)} · {html.escape(text(language, word))}</th>"
        for name in names
        for word in ("last", "best")
    )
    body = []
    for place, row in enumerate(rows):
        dot = f'<span class="dot" style="background:{colour(row.shown.index)}"></span>'
        cells = [f"<td>{dot}{html.escape(row.shown.facts.name)}</td>"]
        for index, pair in enumerate(row.values):
            marked = ' class="best"' if best[index] == place else ""
            cells.append(f"<td>{pair[0]:.6g}</td><td{marked}>{pair[1]:.6g}</td>" if pair else "<td></td><td></td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(body)}</table></div>'


def _config_table(shown: Sequence[Shown], language: str) -> str:
    head = "".join(f"<th>{html.escape(run.facts.name)}</th>" for run in shown)
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
