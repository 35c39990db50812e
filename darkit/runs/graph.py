"""The module graph of a run, as its first step recorded it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_object

INPUT = "input"
"""What feeds a module that gets the model's own input."""
MOST_MODULES = 5_000
_MOST_SHAPES = 16
_MOST_SOURCES = 16
_MOST_TEXT = 300  # characters of a name
_LARGEST = 8 * 2**20  # bytes of the file

Shape = tuple[int, ...]


@dataclass
class Node:
    """A module of the graph.

    Attributes:
        name: Its place in the model; empty for the model itself.
        kind: The name of its class.
        parameters: Number of its parameters, with those of its parts.
        is_leaf: Whether it has no parts.
        calls: How often it was called; 0 for one that was not seen.
        inputs: The shapes of the tensors it got in its first call.
        outputs: The shapes of the tensors it returned in its first call.
        sources: The leaves whose outputs feed it, through whatever functions are between, in the order of their calls;
            `INPUT` is the model's input.
        more_sources: How many further sources are left out.
    """

    name: str
    kind: str
    parameters: int
    is_leaf: bool
    calls: int = 0
    inputs: list[Shape] = field(default_factory=list)
    outputs: list[Shape] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    more_sources: int = 0


@dataclass
class Graph:
    """The modules of a model.

    Attributes:
        nodes: The modules: first those that were called, in the order of their first calls.
        left_out: How many further modules are left out.
        unseen: Why calls were not seen, or not all; empty if they were.
    """

    nodes: list[Node]
    left_out: int = 0
    unseen: str = ""

    @property
    def has_shapes(self) -> bool:
        """Whether any call was seen."""
        return any(node.calls for node in self.nodes)


def write_graph(folder: Path, graph: Graph) -> None:
    """Write the graph into a run directory. Raises `StorageError`."""
    rows = []
    for node in graph.nodes[:MOST_MODULES]:
        row = {
            "name": node.name[:_MOST_TEXT],
            "class": node.kind[:_MOST_TEXT],
            "parameters": node.parameters,
            "leaf": node.is_leaf,
            "calls": node.calls,
            "inputs": node.inputs[:_MOST_SHAPES],
            "outputs": node.outputs[:_MOST_SHAPES],
            "from": [name[:_MOST_TEXT] for name in node.sources[:_MOST_SOURCES]],
            "more": node.more_sources + max(0, len(node.sources) - _MOST_SOURCES),
        }
        rows.append(json.dumps({key: value for key, value in row.items() if value or key in ("name", "class")}))
    left_out = graph.left_out + max(0, len(graph.nodes) - MOST_MODULES)
    head = json.dumps({"unseen": graph.unseen, "left_out": left_out})[:-1]
    files.write_text(folder / files.GRAPH, f'{head}, "modules": [\n' + ",\n".join(rows) + "\n]}\n")


def read_graph(folder: Path) -> Graph | None:
    """Return the recorded graph, or None. The file is untrusted: what is not as it should be is left out."""
    try:
        found = read_object(folder / files.GRAPH, _LARGEST)
    except (FileNotFoundError, UnreadableError):
        return None
    modules = found.get("modules")
    rows = [row for row in modules if isinstance(row, dict)] if isinstance(modules, list) else []
    nodes = [node for row in rows[:MOST_MODULES] if (node := _node(row)) is not None]
    if not nodes:
        return None
    more = max(0, len(rows) - MOST_MODULES)
    return Graph(nodes, _count(found.get("left_out")) + more, _text(found.get("unseen")))


def _node(row: Mapping[str, Any]) -> Node | None:
    name, kind = row.get("name"), row.get("class")
    if not isinstance(name, str) or not isinstance(kind, str):
        return None
    sources = row.get("from")
    return Node(
        _text(name),
        _text(kind),
        _count(row.get("parameters")),
        row.get("leaf") is True,
        calls=_count(row.get("calls")),
        inputs=_shapes(row.get("inputs")),
        outputs=_shapes(row.get("outputs")),
        sources=[_text(one) for one in sources[:_MOST_SOURCES]] if isinstance(sources, list) else [],
        more_sources=_count(row.get("more")),
    )


def _shapes(value: Any) -> list[Shape]:
    shapes: Iterable[Any] = value[:_MOST_SHAPES] if isinstance(value, list) else ()
    return [tuple(_count(size) for size in shape[:_MOST_SHAPES]) for shape in shapes if isinstance(shape, list)]


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**100 else 0


def _text(value: Any) -> str:
    return value[:_MOST_TEXT] if isinstance(value, str) else ""
