"""The calls of a model's modules are seen at its first step, and nothing about them changes."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from darkit.engine.description.graph import trace_modules
from darkit.engine.steps import counting
from darkit.engine.steps.calls import GradientOrigins, ModuleCalls
from darkit.runs.graph import INPUT, Graph, Node, read_graph
from tests.engine.parts import LossMLP, equal_weights, made, train, xy


class Branched(nn.Module):
    """Two branches, a function between modules, a residual sum, a loop over one cell, and a part that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5))
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.cell = nn.LSTMCell(6, 5)
        self.again = self.left
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = hidden + torch.stack([F.relu(self.left(hidden)), self.right(hidden)]).mean(0)
        state = None
        for _ in range(3):
            state = self.cell(hidden, state)
        assert state is not None
        return self.again(F.pad(state[0], (0, 1)))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self(batch[0]).square().mean()  # type: ignore[no-any-return]


def graph_of(run: Any) -> Graph:
    found = read_graph(run.path)
    assert found is not None
    return found


def seen(model: nn.Module, *inputs: Any) -> dict[str, Node]:
    calls = ModuleCalls(model, GradientOrigins(inputs))
    with calls.seen():
        model(*inputs)
    assert calls.error is None
    return {node.name: node for node in calls.graph().nodes}


def test_a_training_records_what_a_trace_of_the_same_batch_finds() -> None:
    model = Branched()
    graph = graph_of(train(model, xy(), batch_size=8, max_step=2))
    x = torch.randn(8, 4)
    expected = trace_modules(model, lambda: model(x), (x,))
    assert [node for node in graph.nodes if node.calls] == expected
    assert [node.name for node in graph.nodes if not node.calls] == ["unused"]
    left = next(node for node in expected if node.name == "left")
    assert (left.calls, left.sources) == (2, ["first.2", "cell"])
    assert sys.getprofile() is None


def test_it_changes_no_bit_and_takes_part_in_one_forward_pass_only(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    original = ModuleCalls.seen
    monkeypatch.setattr(ModuleCalls, "seen", lambda self: passes.append(1) or original(self))
    model = Branched()
    other, start = copy.deepcopy(model), torch.get_rng_state()
    train(model, xy(), batch_size=4, max_step=4, gradient_accumulation_steps=2)
    assert len(passes) == 1
    monkeypatch.setattr(counting.StepCount, "graph", lambda self: Graph([]))
    monkeypatch.setattr(ModuleCalls, "seen", lambda self: counting.nullcontext())
    torch.set_rng_state(start)
    train(other, xy(), batch_size=4, max_step=4, gradient_accumulation_steps=2)
    assert equal_weights(model, other)


def test_a_resumed_run_keeps_its_graph() -> None:
    run = train(made(), xy(), max_step=1, name="again")
    before = (run.path / "graph.json").stat()
    train(made(), xy(), max_step=2, name="again", resume=True)
    assert (run.path / "graph.json").stat().st_mtime_ns == before.st_mtime_ns


def test_frozen_parts_and_functions_without_gradients_are_fed_by_what_is_passed_on() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(5, 3), nn.Sequential(nn.Tanh(), nn.Tanh()), nn.Linear(3, 2)

        def forward(self, words: Tensor) -> Tensor:
            with torch.no_grad():
                hidden = self.body(self.embed(words))
            return self.head(hidden.exp())

    found = seen(Frozen(), torch.zeros(2, 7, dtype=torch.long))
    assert [found[name].sources for name in ("embed", "body.0", "body.1")] == [[INPUT], ["embed"], ["body.0"]]
    assert found["head"].sources == [], "what a function without gradients made of it is not known"


def test_a_checkpointed_part_is_called_once_and_what_follows_it_claims_no_wrong_source() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(checkpoint(self.inner, self.first(x), use_reentrant=True) * 2)  # type: ignore[no-any-return]

    found = seen(Checkpointed(), torch.ones(3, 2))
    assert (found["inner"].calls, found["inner"].outputs) == (1, [(3, 2)])
    assert found["last"].sources == []


def test_odd_outputs_and_modules_that_come_to_be_in_a_call() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lazy, self.texts, self.late = nn.LazyLinear(3), Texts(), None
            self.scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3)))

        def forward(self, x: Tensor) -> Any:
            self.late = copy.deepcopy(self.texts)
            hidden = self.scripted(self.lazy(x))
            return {"a": [hidden, {"b": (hidden[0], None, "text")}], "n": self.texts(x)}

    class Texts(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return ["text", 3, object()]

    model = Odd()
    found = seen(model, torch.ones(2, 4))
    assert found[""].outputs == [(2, 3), (3,)]
    assert (found["lazy"].outputs, found["lazy"].parameters) == ([(2, 3)], 15)
    assert (found["texts"].calls, found["texts"].outputs, found["late"].calls) == (1, [], 0)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_the_fused_path_of_an_encoder_in_evaluation_mode_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch does not take it where hooks are attached, and its numbers differ in the last bits."""
    taken: list[int] = []
    fused = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *given: taken.append(1) or fused(*given))
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad():
        found = seen(layer, torch.ones(2, 3, 8))
    assert taken == [1]
    assert found[""].outputs == [(2, 3, 8)]


def test_a_compiled_model_has_its_modules_without_shapes() -> None:
    class Compiled(LossMLP):
        def compile(self, **options: Any) -> None:
            super().compile(backend="eager", **options)

    graph = graph_of(train(Compiled(), xy(), max_step=1, compile=True))
    assert (graph.has_shapes, graph.unseen) == (False, "compile=true")
    assert [(node.name, node.parameters) for node in graph.nodes][1:3] == [("layers", 49), ("layers.0", 40)]


def test_another_profiler_is_left_alone() -> None:
    model = made()
    calls = ModuleCalls(model, GradientOrigins(()))
    noted: list[str] = []
    note = lambda frame, event, value: noted.append(event)  # noqa: E731
    sys.setprofile(note)
    try:
        with calls.seen():
            model(xy(2)[0])
        assert sys.getprofile() is note
    finally:
        sys.setprofile(None)
    assert str(calls.error) == "another profiler is active"
    assert "call" in noted


def test_an_error_in_the_looking_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, value: Any) -> Any:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(GradientOrigins, "of", fail)
    graph = graph_of(train(made(), xy(), max_step=2))
    assert graph.unseen == "odd"
    assert sys.getprofile() is None


def test_the_error_of_a_model_is_raised_and_nothing_is_left() -> None:
    calls = ModuleCalls(made(), GradientOrigins(()))
    with pytest.raises(TypeError), calls.seen():
        made()(1, 2, 3)
    assert sys.getprofile() is None


@pytest.mark.parametrize("whole", [False, True])
def test_compiled_code_is_compiled_once_and_its_graph_has_no_breaks(whole: bool) -> None:
    """Hooks on the modules would be compiled into it, and compiled again without them in the second step."""
    torch._dynamo.reset()
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.append(1)
        return graph.forward

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = made()
            layer = self.layer
            self.call = torch.compile(lambda x: layer(x) * 2, backend=backend, fullgraph=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x)  # type: ignore[no-any-return]

    model = torch.compile(made(), backend=backend, fullgraph=True) if whole else Inside()
    found = seen(model, xy(4)[0])
    for _ in range(2):
        model(xy(4)[0])
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert len(compiled) == 1
    assert found[""].outputs == [(4, 1)]
    assert not any(node.calls for name, node in found.items() if name.endswith("layers"))
