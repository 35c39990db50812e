"""The receipt of a spiking model as one page to print: tables, firing rates over time, energy and rasters."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from darkit.dashboard.charts.colours import colour
from darkit.dashboard.charts.export import STYLE
from darkit.dashboard.texts import text
from darkit.errors import MediaError
from darkit.runs import Run
from darkit.runs.home import format_time
from darkit.runs.inert import inert
from darkit.runs.media import Medium, read_medium
from darkit.runs.numbers import number_text
from darkit.runs.spiking import ENERGY, RecordedReceipt, RecordedTable, cell_text, firing_rates, is_text, spent_energy

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_TYPES = {"png": "png", "jpg": "jpeg", "gif": "gif", "webp": "webp"}  # endings of images -> their media types
_LARGEST_IMAGE = 8 * 2**20  # bytes
_MOST_IMAGES = 16
_MOST_ROWS = 1_000
_LONGEST = 500  # characters of a text from the run
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 200, 52, 22  # of the chart in pixels, with the room for its numbers
_STYLE = f"""{STYLE}
body{{max-width:820px}}svg,img{{max-width:100%;height:auto}}th{{white-space:normal;vertical-align:bottom}}
td,th{{padding:3px 8px}}.muted{{color:#5c636a}}figure{{margin:12px 0;break-inside:avoid}}
svg text{{font:11px system-ui,sans-serif;fill:#5c636a}}img{{image-rendering:pixelated;border:1px solid #dee2e6}}
"""


def receipt_page(run: Run, receipt: RecordedReceipt, language: str = "en") -> bytes:
    """Return a receipt as one HTML file, which needs no server, requests nothing and runs no script.

    Args:
        run: The run.
        receipt: Its receipt.
        language: ``en`` or ``zh``.
    """
    say = partial(text, language)
    title = _text(say("receipt_of", name=run.name))
    git = run.info.get("git")
    commit = str(git.get("commit") or "")[:12] if isinstance(git, dict) else ""
    started = format_time(run.created, "%Y-%m-%d %H:%M") if run.created else ""
    facts = [run.model_class, say("at_step", step=f"{receipt.step:,}"), started, commit]
    parts = [f'<h1>{title}</h1><p class="muted">{_text(" · ".join(filter(None, facts)))}</p>']
    for key, table in receipt.tables.items():
        parts.append(f"<section><h2>{_text(say(key.replace('/', '_')))}</h2>")
        parts.append(f'<p class="muted">{_text(table.caption)}</p>{_table(table, language)}')
        if key == ENERGY and (energy := spent_energy(table)) is not None:
            spent, dense = energy
            said = say(
                "energy_of", spent=number_text(spent, 4), dense=number_text(dense, 4), share=f"{spent / dense:.1%}"
            )
            parts.append(f"<p>{_text(said)}</p>{_bars(spent, dense, language)}")
        parts.append("</section>")
    rates = firing_rates(run)
    if rates:
        parts.append(f"<section><h2>{_text(say('rates_over_time'))}</h2>{_chart(rates)}</section>")
    images = list(_images(run.path, receipt.rasters[:_MOST_IMAGES]))
    if images:
        parts.append(f"<section><h2>{_text(say('rasters'))}</h2>{''.join(images)}</section>")
    page = f"""<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
{"".join(parts)}
</body></html>"""
    return page.encode("utf-8", "replace")


def _table(table: RecordedTable, language: str) -> str:
    kinds = ["" if is_text(name) else ' class="number"' for name in table.columns]
    head = "".join(f"<th{kind}>{_text(name)}</th>" for name, kind in zip(table.columns, kinds, strict=True))
    rows = []
    for row in table.rows[:_MOST_ROWS]:
        cells = zip(table.columns, row, kinds, strict=True)
        rows.append(
            "<tr>" + "".join(f"<td{kind}>{_text(cell_text(name, cell))}</td>" for name, cell, kind in cells) + "</tr>"
        )
    left = len(table.rows) - _MOST_ROWS
    more = f'<p class="muted">{_text(text(language, "more_rows", count=f"{left:,}"))}</p>' if left > 0 else ""
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>{more}'


def _bars(spent: float, dense: float, language: str) -> str:
    """Draw the energy of the model above that of its dense twin."""
    longest = max(spent, dense)
    lines = []
    for place, (key, energy) in enumerate((("energy_model", spent), ("energy_twin", dense))):
        y, width = 4 + 26 * place, max(1.0, (_WIDTH - 200) * energy / longest)
        lines.append(f'<text x="0" y="{y + 14}">{_text(text(language, key))}</text>')
        lines.append(f'<rect x="110" y="{y}" width="{width:.1f}" height="20" fill="{colour(place)}"/>')
        lines.append(f'<text x="{116 + width:.1f}" y="{y + 14}">{number_text(energy, 4)} nJ</text>')
    return f'<svg width="{_WIDTH}" height="56" viewBox="0 0 {_WIDTH} 56" aria-hidden="true">{"".join(lines)}</svg>'


def _chart(rates: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw the firing rate of each layer over the steps as SVG."""
    steps = [step for curve in rates.values() for step, _ in curve]
    first, last = min(steps), max(steps)
    top = max((rate for curve in rates.values() for _, rate in curve), default=0.0) or 1.0

    def place(step: float, rate: float) -> str:
        across = (step - first) / (last - first) if last > first else 0.5
        return f"{_LEFT + across * (_WIDTH - _LEFT - 8):.1f},{8 + (1 - rate / top) * (_HEIGHT - _BOTTOM - 8):.1f}"

    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<path d="M{_LEFT} 8V{floor}H{_WIDTH - 8}" fill="none" stroke="#adb5bd"/>',
        f'<text x="{_LEFT - 6}" y="14" text-anchor="end">{top:.1%}</text>',
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">0%</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{number_text(first)}</text>',
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{number_text(last)}</text>',
    ]
    names = []
    for index, (name, curve) in enumerate(rates.items()):
        line = colour(index)
        if len(curve) == 1:
            x, y = place(*curve[0]).split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{line}"/>')
        else:
            points = " ".join(place(*point) for point in curve)
            parts.append(f'<polyline fill="none" stroke="{line}" stroke-width="1.6" points="{points}"/>')
        names.append(f'<li><span style="color:{line}">—</span> {_text(name)}</li>')
    drawn = (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    )
    return f'<figure>{drawn}<ul class="legend">{"".join(names)}</ul></figure>'


def _images(folder: Path, rasters: Sequence[Medium]) -> Iterator[str]:
    for medium in rasters:
        kind = _TYPES.get(medium.file.rpartition(".")[2])
        if medium.kind != "image" or kind is None or medium.size > _LARGEST_IMAGE:
            continue
        try:
            data = base64.b64encode(read_medium(folder, medium)).decode()
        except MediaError:
            continue
        said = _text(medium.caption or medium.key)
        image = f'<img alt="" src="data:image/{kind};base64,{data}">'
        yield f'<figure>{image}<figcaption class="muted">{said}</figcaption></figure>'


def _text(words: str) -> str:
    shown = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
    return html.escape(inert(shown).encode("utf-8", "replace").decode())
