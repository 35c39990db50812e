"""The checkpoints of a run as a table: step, size, verification, metrics."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.parts import card, code_block
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.texts import text
from darkit.runs.checkpoints import Checkpoint, list_checkpoints, manifest_path
from darkit.runs.safe import finite_number as number


def checkpoints_card(facts: Facts, language: str) -> Component:
    """Return the card of a run's checkpoints, the latest first."""
    say = partial(text, language)
    found = safe_checkpoints(facts.folder)
    if not found:
        return card(say("tab_checkpoints"), html.P(say("ckpt_none"), className="muted"))
    head = [say(key) for key in ("ckpt_name", "step", "ckpt_size", "ckpt_state", "ckpt_metrics")]
    rows = []
    for checkpoint in reversed(found):
        verified, word, kind = _verification(checkpoint, language)
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in checkpoint.metrics.items())
        rows.append(
            html.Tr(
                [
                    html.Th(checkpoint.name, scope="row"),
                    html.Td(f"{checkpoint.step:,}", className="number"),
                    html.Td(_size(checkpoint.size), className="number"),
                    html.Td(html.Span(word, className=f"tag-{kind}", title=verified), className="verification"),
                    html.Td(readable(metrics), className="long"),
                ]
            )
        )
    kinds = ("", "number", "number", "verification", "")
    titles = [html.Th(word, className=kind) for word, kind in zip(head, kinds, strict=True)]
    table = html.Table([html.Thead(html.Tr(titles)), html.Tbody(rows)], className="values")
    return card(
        say("tab_checkpoints"),
        html.Div(table, className="scroll-x"),
        html.P(say("ckpt_note"), className="muted"),
        code_block(f"darkit verify {shlex.quote(facts.folder.name)}", language),
    )


def safe_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of a run; none if its manifests are malformed."""
    try:
        found = list_checkpoints(folder)
    except (OSError, TypeError, ValueError, AttributeError):
        return []
    return [checkpoint for checkpoint in found if isinstance(checkpoint.metrics, dict)]


def _verification(checkpoint: Checkpoint, language: str) -> tuple[str, str, str]:
    if checkpoint.problem:
        return "", readable(checkpoint.problem), "bad"
    if not manifest_path(checkpoint.path).is_file():
        return "", text(language, "ckpt_unverified"), "plain"
    return readable(f"sha256 {checkpoint.sha256}"), text(language, "ckpt_whole"), "good"


def _size(size: int) -> str:
    amount = float(min(size, 10**18))
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _number(value: Any) -> str:
    known = number(value)
    return f"{known:.5g}" if known is not None else str(value)[:40]
