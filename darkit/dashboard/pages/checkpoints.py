"""The checkpoints of a run as a table: step, size, verification, metrics."""

from __future__ import annotations

import shlex
from functools import partial

from dash import html
from dash.development.base_component import Component
from rich.filesize import decimal

from darkit.dashboard.pages.parts import card, code_block
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.texts import text
from darkit.runs.checkpoints import Checkpoint, list_checkpoints, manifest_path
from darkit.runs.numbers import number_text


def checkpoints_card(facts: Facts, language: str) -> Component:
    """Return the card of a run's checkpoints, the latest first."""
    say = partial(text, language)
    found = list_checkpoints(facts.folder)
    if not found:
        return card(say("tab_checkpoints"), html.P(say("ckpt_none"), className="muted"))
    head = [say(key) for key in ("ckpt_name", "step", "ckpt_size", "ckpt_state", "ckpt_metrics")]
    rows = []
    for checkpoint in reversed(found):
        verified, word, kind = _verification(checkpoint, language)
        metrics = ", ".join(f"{name} {number_text(value)}" for name, value in checkpoint.metrics.items())
        rows.append(
            html.Tr(
                [
                    html.Th(checkpoint.name, scope="row"),
                    html.Td(f"{checkpoint.step:,}", className="number"),
                    html.Td(decimal(checkpoint.size), className="number"),
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
        html.Div(table, className="scroll-x", tabIndex=0),
        html.P(say("ckpt_note"), className="muted"),
        code_block(f"darkit verify {shlex.quote(facts.folder.name)}", language),
    )


def _verification(checkpoint: Checkpoint, language: str) -> tuple[str, str, str]:
    if checkpoint.problem:
        return "", readable(checkpoint.problem), "bad"
    if not manifest_path(checkpoint.path).is_file():
        return "", text(language, "ckpt_unverified"), "plain"
    return readable(f"sha256 {checkpoint.sha256}"), text(language, "ckpt_whole"), "good"
