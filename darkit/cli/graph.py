"""The modules of a run's model with shapes and parameters: ``darkit show NAME --graph``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from darkit.runs import Run
from darkit.runs.graph import Node, read_graph
from darkit.runs.inert import inert

_COLUMNS = ("module", "class", "input", "output", "parameters", "from")
_MOST_SOURCES = 4


def print_graph(found: Run, console: Console) -> None:
    """Print a row for each module of the model that an input goes through.

    The first step of a training records them; of a run without that record, the model is built again.

    Raises:
        ConfigError: The model cannot be built, or nothing is known of its input.
    """
    graph = read_graph(found.path)
    if graph is not None and graph.has_shapes:
        nodes, whence = [node for node in graph.nodes if node.calls], "the first batch of the training"
    else:
        from darkit.prediction.exporting.module_graph import graph_of

        nodes, whence, graph = graph_of(found), "batches of 2", None
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
    for node in nodes:
        table.add_row(*(Text(inert(cell)) for cell in _row(node)))
    console.print(Text(found.name, "bold"), Text(f"{whence}; x3 is a module that is called three times", "dim"))
    console.print(table, soft_wrap=True)
    if graph is not None and graph.left_out:
        console.print(Text(f"and {graph.left_out:,} more modules", "dim"))
    if graph is not None and graph.unseen:
        console.print(Text(inert(f"Not all calls were seen: {graph.unseen}."), "dim"))


def _row(node: Node) -> list[str]:
    depth = node.name.count(".") + 1 if node.name else 0
    name = "  " * depth + (node.name.rpartition(".")[2] or "(model)")
    times = f" x{node.calls}" if node.calls > 1 else ""
    sources = node.sources if node.is_leaf else []
    hidden = max(0, len(sources) - _MOST_SOURCES) + (node.more_sources if node.is_leaf else 0)
    more = f", and {hidden} more" if hidden else ""
    return [
        name + times,
        node.kind,
        _shapes(node.inputs),
        _shapes(node.outputs),
        f"{node.parameters:,}" if node.parameters else "",
        ", ".join(sources[:_MOST_SOURCES]) + more,
    ]


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "1" for shape in shapes)
