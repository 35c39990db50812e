"""A copy of nested state that nothing can change any more, in memory that is used again."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from darkit.engine.compare import differences
from darkit.engine.snapshot import Snapshot

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(width=16) | st.text(max_size=3)
TENSORS = st.builds(
    lambda shape, dtype: torch.ones(shape).cumsum(0).to(dtype) if shape else torch.tensor(3.0).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
)
NESTED = st.recursive(
    PLAIN | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=8,
)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@given(st.dictionaries(st.text(max_size=2), NESTED, max_size=4))
def test_whatever_the_state_is_its_copy_is_equal_and_shares_no_memory_with_it(state: dict[str, Any]) -> None:
    snapshot = Snapshot()
    for _ in range(2):
        copied = snapshot.take(state)
        assert list(differences(state, copied)) == []
        theirs = {tensor.data_ptr() for tensor in tensors(state) if tensor.numel()}
        assert not theirs & {tensor.data_ptr() for tensor in tensors(copied) if tensor.numel()}


def test_what_happens_to_the_state_later_does_not_reach_the_copy() -> None:
    state: dict[str, Any] = {"weight": torch.zeros(3), "list": [1, [2]], "tuple": ({"deep": torch.zeros(2)},)}
    copied = Snapshot().take(state)
    kept = copy.deepcopy(copied)
    state["weight"].fill_(9)
    state["list"][1].append(3)
    state["tuple"][0]["deep"].fill_(9)
    state["new"] = 1
    assert list(differences(copied, kept)) == []


def test_the_memory_of_the_first_copy_is_used_again() -> None:
    state = {"one": torch.zeros(1000), "two": {"three": torch.zeros(10, 10)}}
    snapshot = Snapshot()
    first = [tensor.data_ptr() for tensor in tensors(snapshot.take(state))]
    state["one"].fill_(7)
    second = snapshot.take(state)
    assert [tensor.data_ptr() for tensor in tensors(second)] == first
    assert torch.equal(second["one"], state["one"])


def test_a_tensor_of_another_shape_or_dtype_gets_a_buffer_that_fits() -> None:
    snapshot = Snapshot()
    for value in (torch.zeros(2), torch.zeros(3), torch.zeros(3, dtype=torch.float64), torch.zeros(())):
        copied = snapshot.take({"value": value})["value"]
        assert (copied.shape, copied.dtype) == (value.shape, value.dtype)


def test_what_is_gone_from_the_state_keeps_no_memory() -> None:
    snapshot = Snapshot()
    buffer = snapshot.take({"big": torch.zeros(1000)})["big"]
    again = snapshot.take({"small": torch.zeros(1)})
    assert [tensor.numel() for tensor in snapshot._buffers.values()] == [1]
    assert buffer.numel() == 1000, "what was handed out stays whole"
    assert list(again) == ["small"]


def test_tied_weights_stay_tied_and_are_copied_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    copied = Snapshot().take({"state_dict": model.state_dict()})["state_dict"]
    assert copied["0.weight"].data_ptr() == copied["1.weight"].data_ptr()
    assert copied["0.bias"].data_ptr() != copied["1.bias"].data_ptr()


def test_two_views_of_one_memory_that_differ_keep_their_own_values() -> None:
    base = torch.arange(6.0)
    copied = Snapshot().take({"all": base, "half": base[:3], "other": base[3:], "turned": base.view(2, 3).T})
    assert torch.equal(copied["half"], base[:3])
    assert torch.equal(copied["other"], base[3:])
    assert torch.equal(copied["turned"], base.view(2, 3).T)


def test_a_state_dict_keeps_its_kind_and_its_versions() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    copied = Snapshot().take({"state_dict": state})["state_dict"]
    assert type(copied) is OrderedDict
    assert copied._metadata == state._metadata  # type: ignore[attr-defined]
    assert copied._metadata is not state._metadata  # type: ignore[attr-defined]
    nn.BatchNorm1d(2).load_state_dict(copied)


def test_other_mappings_keep_their_kind_too() -> None:
    counts = Counter({"a": 2})
    grown: Any = defaultdict(list, {"b": [torch.zeros(1)]})
    copied = Snapshot().take({"counts": counts, "grown": grown})
    assert copied["counts"] == counts
    assert type(copied["counts"]) is Counter
    assert type(copied["grown"]) is defaultdict
    assert copied["grown"]["b"][0].data_ptr() != grown["b"][0].data_ptr()


def test_parameters_become_tensors_without_a_graph() -> None:
    leaf = nn.Parameter(torch.ones(2))
    copied = Snapshot().take({"leaf": leaf, "computed": leaf * 2})
    assert not copied["leaf"].requires_grad
    assert copied["computed"].grad_fn is None


def test_a_sparse_tensor_and_a_numpy_number_are_copied() -> None:
    sparse = torch.eye(3).to_sparse()
    copied = Snapshot().take({"sparse": sparse, "number": numpy.float64(1.5), "count": numpy.int64(2)})
    assert torch.equal(copied["sparse"].to_dense(), torch.eye(3))
    assert (type(copied["number"]), type(copied["count"])) == (float, int)


def test_an_object_is_copied_deeply() -> None:
    class Thing:
        def __init__(self) -> None:
            self.items = [1]

    thing = Thing()
    copied = Snapshot().take({"thing": thing})["thing"]
    thing.items.append(2)
    assert copied.items == [1]


def test_nothing_waits_where_there_is_no_accelerator() -> None:
    snapshot = Snapshot()
    snapshot.wait()
    snapshot.take({"value": torch.zeros(1)})
    snapshot.wait()
    assert snapshot._events == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_copy_takes_the_memory_of_the_state_once(count: int) -> None:
    state = {"adam": [{"exp_avg": torch.zeros(100), "step": torch.tensor(1.0)} for _ in range(count)]}
    snapshot = Snapshot()
    snapshot.take(state)
    snapshot.take(state)
    assert sum(buffer.nbytes for buffer in snapshot._buffers.values()) == count * 404
