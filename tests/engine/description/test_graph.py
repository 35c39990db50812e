"""The graph of a model: shapes, parameters and what feeds what, also through functions and loops."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.description.graph import trace_modules
from darkit.runs.graph import INPUT, Node


class Branched(nn.Module):
    """Two branches, a function between modules, a residual sum, and a loop over one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.cell = nn.LSTMCell(6, 5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        hidden = self.first(x)
        hidden = hidden + torch.stack([F.relu(self.left(hidden)), self.right(hidden)]).mean(0) * scale["by"]
        state = None
        for _ in range(3):
            state = self.cell(hidden, state)
        assert state is not None
        return state


def traced(model: nn.Module, *inputs: Any) -> dict[str, Node]:
    with torch.no_grad():
        nodes = trace_modules(model, lambda: model(*inputs), inputs)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    return {node.name: node for node in nodes}


def test_the_graph_has_shapes_parameters_calls_and_edges() -> None:
    found = traced(Branched(), torch.ones(3, 4), {"by": torch.ones(3, 1)})
    assert list(found) == ["", "first", "first.0", "first.1", "left", "right", "cell"]
    assert (found[""].kind, found[""].inputs, found[""].outputs) == ("Branched", [(3, 4), (3, 1)], [(3, 5), (3, 5)])
    assert found[""].parameters == 30 + 42 + 36 + 4 * 5 * (6 + 5 + 2) + 6
    assert (found["first"].parameters, found["first"].is_leaf, found["first.0"].is_leaf) == (30, False, True)
    assert found["first.0"].sources == [INPUT]
    assert found["first.1"].sources == ["first.0"]
    assert found["left"].sources == found["right"].sources == ["first.1"]
    assert found["cell"].sources == [INPUT, "first.1", "left", "right", "cell"]
    assert (found["cell"].calls, found["cell"].inputs) == (3, [(3, 6)])


def test_a_model_without_parts_is_fed_by_its_input() -> None:
    found = traced(nn.Linear(2, 3), torch.ones(5, 2))
    assert found[""].sources == [INPUT]
    assert found[""].outputs == [(5, 3)]
