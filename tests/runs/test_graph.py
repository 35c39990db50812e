"""The recorded module graph: written and read back, and nothing in it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import files
from darkit.runs.graph import MOST_MODULES, Graph, Node, read_graph, write_graph

NODES = [
    Node("", "Model", 12, False, 1, [(8, 2)], [(8, 1), ()], ["input"]),
    Node("a.b\ud800 <b>", "Linear", 12, True, 3, [(8, 2)], [(8, 1)], ["input", "c"], 4),
    Node("unseen", "ModuleList", 0, False),
]


def test_a_graph_is_read_as_it_was_written(tmp_path: Path) -> None:
    graph = Graph(NODES, 2, "torch.compile")
    write_graph(tmp_path, graph)
    assert read_graph(tmp_path) == graph
    assert graph.has_shapes
    assert not Graph(NODES[2:]).has_shapes


def test_a_huge_graph_is_bounded_and_says_what_is_left_out(tmp_path: Path) -> None:
    sources = [f"s{number}" for number in range(40)]
    nodes = [Node(f"m{number}", "M" * 1000, 0, True, 1, [(1,)] * 40, [], sources) for number in range(MOST_MODULES + 5)]
    write_graph(tmp_path, Graph(nodes, 1))
    found = read_graph(tmp_path)
    assert found is not None
    assert (len(found.nodes), found.left_out) == (MOST_MODULES, 6)
    node = found.nodes[0]
    assert (len(node.kind), len(node.inputs), node.sources, node.more_sources) == (300, 16, sources[:16], 24)


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 1e999, 10**40, "x", [], {}, [[]], {"a": 1}, [[[[]]]]], ids=repr)
@pytest.mark.parametrize("key", ["name", "class", "parameters", "leaf", "calls", "inputs", "outputs", "from", "more"])
def test_no_field_is_believed(tmp_path: Path, key: str, value: Any) -> None:
    sound = {"name": "sound", "class": "Linear", "outputs": [[1, 2]]}
    full = {"name": "n", "class": "C", "parameters": 1, "inputs": [[2]], "outputs": [[2]], "from": ["x"], "more": 1}
    text = json.dumps({"modules": [{**full, key: value}, sound], "left_out": value, "unseen": value})
    (tmp_path / files.GRAPH).write_text(text)
    found = read_graph(tmp_path)
    assert found is not None
    assert found.nodes[-1] == Node("sound", "Linear", 0, False, outputs=[(1, 2)])
    for node in found.nodes:
        assert all(type(number) is int for number in (node.parameters, node.calls, node.more_sources, found.left_out))
        assert all(isinstance(text, str) for text in (node.name, node.kind, found.unseen, *node.sources))
        assert all(type(size) is int for shape in (*node.inputs, *node.outputs) for size in shape)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"modules": 3}', '{"modules": [3, {}]}', "[" * 10_000])
def test_what_is_no_graph_is_none(tmp_path: Path, content: str) -> None:
    assert read_graph(tmp_path) is None
    (tmp_path / files.GRAPH).write_text(content)
    assert read_graph(tmp_path) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_graph(tmp_path, Graph(NODES))
    (tmp_path / files.GRAPH).rename(tmp_path / "elsewhere")
    (tmp_path / files.GRAPH).symlink_to(tmp_path / "elsewhere")
    assert read_graph(tmp_path) is None
