"""The configs of a run: what was set stands out from what is as it always is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.lineage import changed_settings
from darkit.dashboard.pages.parts import card, code_block, facts_list, shown_setting
from darkit.dashboard.reading.facts import Facts, flatten, readable
from darkit.dashboard.reading.tokenizers import tokenizer_facts
from darkit.dashboard.texts import text
from darkit.runs import files
from darkit.runs.safe import read_text


def settings_panel(facts: Facts, language: str) -> list[Component]:
    """Return the model's and the trainer's config beside each other, the tokenizer, and the composed config."""
    say = partial(text, language)
    composed = read_text(facts.folder / files.COMPOSED_CONFIG)
    changed = changed_settings(facts)
    given = facts.info.get("settings_given")
    names = {name for name in given if isinstance(name, str)} if isinstance(given, list) else None
    model = {key.removeprefix("model."): was for key, was in changed.items() if key.startswith("model.")}
    parts = [card(say("model_config"), settings_table(unprefixed(facts.config), language, changed=model))]
    tokenizer = tokenizer_facts(facts.folder)
    if tokenizer is not None:
        known = [("tok_kind", tokenizer.kind), ("tok_size", f"{tokenizer.size:,}"), ("tok_special", tokenizer.special)]
        parts.append(card(say("tokenizer"), facts_list([(say(key), readable(value)) for key, value in known])))
    table = settings_table(unprefixed(facts.trainer), language, changed=changed, given=names)
    note = [html.P(say("defaults_dimmed"), className="muted")] if names is not None else []
    both: list[Component] = [
        html.Div([html.Div(parts), card(say("trainer_config"), *note, table)], className="side-by-side")
    ]
    if composed:
        both.append(card(say("composed_config"), code_block(readable(composed), language, tall=True)))
    return both


def settings_table(
    values: Mapping[str, Any],
    language: str,
    *,
    changed: Mapping[str, str] | None = None,
    given: set[str] | None = None,
) -> Component:
    """Return a table of flat config values.

    Args:
        values: The values by their keys; those with a key that has dots come from a nested config.
        language: The language of the page.
        changed: Keys that differ from the run's parent, with their values there.
        given: The names that are not as by default, which come first; None if that is unknown.
    """
    if not values:
        return html.P(text(language, "no_config"), className="muted")
    changed = changed or {}
    is_default = {key: given is not None and key.partition(".")[0] not in given for key in values}
    rows = []
    for key in sorted(values, key=lambda key: (key not in changed, is_default[key])):
        value: list[Any] = [shown_setting(values[key])]
        if key in changed:
            value.append(html.Span(text(language, "parent_had", value=changed[key]), className="tag was"))
        kind = "differs" if key in changed else "default" if is_default[key] else ""
        rows.append(html.Tr([html.Th(key, scope="row"), html.Td(value)], className=kind))
    return html.Div(html.Table(html.Tbody(rows), className="values"), className="scroll-x", tabIndex=0)


def unprefixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values by flat keys."""
    return {key.removeprefix("."): value for key, value in flatten(values, "").items()} if values else {}
