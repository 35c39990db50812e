"""The training state in a checkpoint."""

from __future__ import annotations

import enum
import logging
from collections import OrderedDict
from typing import Any

import lightning
import numpy
import pytest
import torch

from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.state import of_rank
from darkit.engine.description.likeness import are_alike
from darkit.engine.device import kept_generators, restore_generators
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.parts import made, train, xy


class Kind(enum.IntEnum):
    ONE = 1


class Keeping(lightning.Callback):
    """Has the state that it is given."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.loaded: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded.append(state)


class Other(Keeping):
    """Another callback."""


PLAIN: dict[str, Any] = {"n": 1, "x": [1.5, ("a", b"b")], "t": torch.ones(2), "p": torch.nn.Parameter(torch.ones(1))}
READABLE = [numpy.float64(1.0), numpy.ones(2), {1}, OrderedDict(a=1), [{"deep": 1 + 2j, "k": {2}}]]
UNREADABLE = [Kind.ONE, object(), [{"deep": {numpy.float64(1.0)}}]]


def test_a_checkpoint_holds_everything_under_the_names_that_people_know() -> None:
    run = train(made(), xy(), scheduler="cosine", max_step=6, callbacks=[Keeping(PLAIN)])
    content = read_checkpoint(find_checkpoint(run.path, 6))
    assert set(content) == {
        "state_dict",
        "model_class",
        "current_step",
        "optimizer_state_dict",
        "scheduler_state_dict",
        "schedule_progress",
        "given_settings",
        "precision",
        "callbacks",
        "rng",
        "position",
    }
    assert (content["model_class"], content["current_step"]) == ("tests.engine.parts.MLP", 6)
    assert content["scheduler_state_dict"]["last_epoch"] == 6
    assert content["given_settings"]["optimizer.lr"] == [1e-3]
    steps = {"samples": 8, "per_step": 4, "groups": 1}
    assert content["position"] == {"epoch": 1, "batches": 2} | steps
    assert set(content["rng"]) == {"python", "numpy", "torch", "cuda"}
    (kept,) = [state for key, state in content["callbacks"].items() if "Keeping" in key]
    assert kept["n"] == 1
    assert kept["x"] == [1.5, ("a", b"b")]


def test_callbacks_get_their_own_saved_state() -> None:
    train(made(), xy(), name="run", callbacks=[Keeping({"n": 1}), Other({"m": 2})])
    one, other, new = Keeping({"n": 9}), Other({"m": 9}), StepsOnly()
    train(made(), xy(), name="run", resume=True, max_step=8, callbacks=[other, new, one])
    assert (one.loaded, other.loaded, new.loaded) == ([{"n": 1}], [{"m": 2}], [])


class StepsOnly(Keeping):
    """A third callback, which was not in the original run."""

    def __init__(self) -> None:
        super().__init__({})


@pytest.mark.parametrize("value", READABLE, ids=lambda value: type(value).__name__)
def test_a_state_that_can_be_read_without_running_code_comes_back(value: Any) -> None:
    train(made(), xy(), name="run", max_step=1, callbacks=[Keeping({"value": value})])
    callback = Keeping({})
    train(made(), xy(), name="run", resume=True, max_step=2, callbacks=[callback])
    (state,) = callback.loaded
    assert are_alike(state["value"], value)


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: type(value).__name__)
def test_an_unreadable_state_is_skipped_with_a_warning(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    callback = Keeping({"value": value})
    with caplog.at_level(logging.WARNING):
        run = train(made(), xy(), max_step=1, callbacks=[callback])
    assert [text for text in caplog.messages if "Keeping" in text] == [
        "The state of the callback Keeping is not saved: it has values other than tensors, numbers, text and "
        "containers."
    ]
    assert "Keeping" not in str(read_checkpoint(find_checkpoint(run.path, 1))["callbacks"])


def test_every_process_finds_its_own_place_and_one_too_many_the_first() -> None:
    ranks = [{"position": rank} for rank in range(2)]
    state = {"ranks": ranks, "current_step": 3}
    assert [of_rank(state, rank)["position"] for rank in (0, 1, 2)] == [0, 1, 0]
    assert of_rank({"position": 5, "current_step": 3}, 3)["position"] == 5


def test_the_generators_of_a_new_process_are_a_function_of_seed_step_and_rank() -> None:
    def drawn(seed: int, step: int, rank: int) -> float:
        mine = of_rank({"ranks": [{"rng": None, "metrics": {"a": 1}}], "current_step": step}, rank, seed)
        assert mine.keys() == {"rng"}, "what a metric counted is not counted twice"
        with kept_generators():
            restore_generators(mine["rng"])
            return float(torch.rand(()))

    before = torch.get_rng_state()
    places = [(0, 3, 1), (0, 3, 2), (0, 4, 1), (1, 3, 1)]
    numbers = [drawn(*place) for place in places]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(numbers)) == 4
    assert numbers == [drawn(*place) for place in places]
