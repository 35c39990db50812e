"""The modules of a run's model as a tree, from the file that its first step recorded."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.parts import card, command_row, still
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.texts import text
from darkit.runs.graph import Node, Shape, read_graph
from darkit.runs.safe import as_dict

_OPEN = 2  # levels that are open at first
_DEEPEST = 40  # levels; what is deeper is beside its parent
_MOST_SHAPES = 3
_MOST_SHOWN = 2_000  # modules


@dataclass
class _Place:
    """A module in the tree: its last name, what is known of it, and the modules in it."""

    name: str
    node: Node | None = None
    parts: dict[str, _Place] = field(default_factory=dict)


def graph_box(facts: Facts, language: str) -> Component:
    """Return the place of a run's modules, or of how to see them."""
    found = new_graph(facts, language)
    shown = _without(facts, language) if found is None else found
    return html.Div(shown, id="graph-box", className="renewed", **{"data-known": "" if found is None else "1"})


def new_graph(facts: Facts, language: str) -> Component | None:
    """Return the card of a run's modules, or None before they are recorded."""
    say = partial(text, language)
    graph = read_graph(facts.folder)
    if graph is None:
        return None
    reason = readable(graph.unseen)
    notes = [say("graph_hint") if graph.has_shapes else say("graph_no_shapes", reason=reason)]
    if graph.has_shapes and reason:
        notes.append(say("graph_unseen", reason=reason))
    if left_out := graph.left_out + max(0, len(graph.nodes) - _MOST_SHOWN):
        notes.append(say("graph_more", count=f"{left_out:,}"))
    tree = html.Ul([_item(_tree(graph.nodes[:_MOST_SHOWN]), language, 0)], className="tree modules")
    said = [html.P(note, className="muted") for note in notes]
    return card(say("tab_graph"), *said, still(tree), _command(facts, language))


def _without(facts: Facts, language: str) -> Component:
    said = html.P(text(language, "no_graph"), className="muted")
    place = still(html.Div())  # by which the page's script knows where the tree will be
    return card(text(language, "tab_graph"), said, place, _command(facts, language))


def _command(facts: Facts, language: str) -> Component:
    command = f"darkit show {shlex.quote(facts.folder.name)} --graph"
    return command_row(text(language, "graph_terminal"), readable(command), language)


def has_graph(facts: Facts) -> bool:
    """Return whether a run's page has modules to show, or can say how to see them."""
    may_build = bool(facts.info.get("model")) and not facts.label and not as_dict(facts.info.get("origin"))
    return may_build or read_graph(facts.folder) is not None


def _tree(nodes: Sequence[Node]) -> _Place:
    root = _Place("")
    for node in nodes:
        place = root
        for name in node.name.split(".", _DEEPEST) if node.name else ():
            place = place.parts.setdefault(name, _Place(name))
        place.node = place.node or node
    return root


def _item(place: _Place, language: str, depth: int) -> Component:
    """Return a module, and in it those that belong to it, which are folded below the second level."""
    line = _line(place, readable(place.name) if depth else text(language, "graph_model"), language)
    if not place.parts:
        return html.Li(html.Div(line, className="module"))
    inside = html.Ul([_item(one, language, depth + 1) for one in place.parts.values()])
    fold = [html.Summary(line, className="module"), inside]
    return html.Li(html.Details(fold, open=True) if depth < _OPEN else html.Details(fold))


def _line(place: _Place, name: str, language: str) -> list[Component | str]:
    """Return name, class, shapes and parameters of a module."""
    say, node = partial(text, language), place.node
    parts: list[Component] = [html.B(name)]
    if node is None:
        return parts
    parts.append(html.Span(readable(node.kind), className="module-class"))
    if node.outputs:
        shape = _shapes(node.outputs)
        parts.append(html.Span(shape, className="module-shape", title=say("graph_output", shape=shape)))
    if node.parameters:
        parts.append(html.Span(say("graph_parameters", count=f"{node.parameters:,}"), className="muted"))
    if node.calls > 1:
        parts.append(html.Span(say("graph_calls", count=f"{node.calls:,}"), className="muted"))
    return [part for one in parts for part in (one, " ")][:-1]  # read aloud, they are words of their own


def _shapes(shapes: Sequence[Shape]) -> str:
    shown = [" × ".join(map(str, shape)) or "1" for shape in shapes[:_MOST_SHAPES]]
    return ", ".join(shown) + (", …" if len(shapes) > _MOST_SHAPES else "")
