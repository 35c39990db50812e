"""A copy of the state: complete, independent of the original, and always in the same memory."""

from __future__ import annotations

import collections
import io
import os
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darkit.engine.checkpoints import snapshot
from darkit.engine.checkpoints.difference import differences
from darkit.engine.checkpoints.snapshot import Snapshot

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.integers(0, 5).map(lambda size: torch.arange(float(size))),
    st.sampled_from([torch.int64, torch.bfloat16, torch.bool, torch.complex64]).map(
        lambda kind: torch.ones(2, dtype=kind)
    ),
)
STATES = st.dictionaries(
    st.text(max_size=3) | st.integers(0, 9),
    st.recursive(
        ATOMS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=5,
)


def pointers(value: Any) -> list[int]:
    if isinstance(value, Tensor):
        return [value.data_ptr()]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [pointer for item in items for pointer in pointers(item)]


@given(STATES)
def test_the_copy_equals_the_state_and_shares_no_memory_with_it(state: dict[Any, Any]) -> None:
    snapshot = Snapshot()
    for _ in range(2):
        copied = snapshot.copy(state)
        assert list(differences(state, copied)) == []
        assert not set(pointers(state)) & set(pointers(copied)) - {0}


def test_later_changes_do_not_change_the_copy() -> None:
    model = nn.Linear(2, 2)
    state: dict[str, Any] = {"state_dict": model.state_dict(), "list": [1, [2]], "set": {1}}
    copied = Snapshot().copy(state)
    expected = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    state["list"][1].append(3)
    state["set"].add(2)
    assert torch.equal(copied["state_dict"]["weight"], expected)
    assert copied["list"] == [1, [2]]
    assert copied["set"] == {1}


def test_the_next_copy_is_made_in_the_same_memory() -> None:
    weights = {"w": torch.zeros(3), "other": [torch.zeros(2)]}
    snapshot = Snapshot()
    first = pointers(snapshot.copy(weights))
    weights["w"].fill_(1)
    second = snapshot.copy(weights)
    assert pointers(second) == first
    assert second["w"].tolist() == [1, 1, 1]


def test_a_tensor_of_another_shape_or_kind_gets_memory_of_its_own_and_the_old_is_let_go() -> None:
    snapshot = Snapshot()
    for tensor in (torch.ones(2), torch.ones(3), torch.ones(3, dtype=torch.int32), torch.ones(3, 1)):
        copied = snapshot.copy({"w": tensor})["w"]
        assert torch.equal(copied, tensor)
        assert copied.dtype == tensor.dtype
    snapshot.copy({})
    assert snapshot._buffers == {}


def test_tied_weights_are_one_tensor_and_one_storage_in_the_file() -> None:
    tied = nn.ModuleDict({"a": nn.Linear(50, 50, bias=False), "b": nn.Linear(50, 50, bias=False)})
    tied["b"].weight = tied["a"].weight
    snapshot = Snapshot()
    for _ in range(2):
        copied = snapshot.copy({"state_dict": tied.state_dict()})
        file = io.BytesIO()
        torch.save(copied, file)
        assert 50 * 50 * 4 < len(file.getvalue()) < 50 * 50 * 4 * 1.5
        weights = torch.load(io.BytesIO(file.getvalue()), weights_only=True)["state_dict"]
        assert weights["a.weight"].data_ptr() == weights["b.weight"].data_ptr()
        with torch.no_grad():
            tied["a"].weight.mul_(2)
    assert torch.equal(copied["state_dict"]["b.weight"], tied["a"].weight / 2)


def test_views_and_transposed_tensors_are_copied_by_their_values() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"whole": whole, "column": whole[:, 1], "turned": whole.T, "empty": whole[:0], "again": whole[:0]}
    copied = Snapshot().copy(state)
    assert list(differences(state, copied)) == []


def test_the_layout_in_memory_is_kept_but_not_gaps_in_it() -> None:
    whole = torch.arange(120.0).reshape(2, 3, 4, 5)
    last = whole.to(memory_format=torch.channels_last)
    state = {"last": last, "turned": whole[0, 0].T, "gaps": whole[..., ::2], "single": last[:1]}
    snapshot = Snapshot()
    places = [pointers(copied := snapshot.copy(state)) for _ in range(2)]
    assert places[0] == places[1]
    assert {name: copied[name].stride() for name in ("last", "turned", "single")} == {
        name: state[name].stride() for name in ("last", "turned", "single")
    }
    assert copied["gaps"].is_contiguous()
    assert snapshot.copy({"last": whole})["last"].is_contiguous()
    assert list(differences(state, copied)) == []


def test_conjugates_and_negatives_in_the_same_memory_have_their_own_values() -> None:
    values = torch.tensor([1 + 2j, 3 - 4j])
    state = {"values": values, "conjugate": values.conj(), "part": values.imag, "negative": values.conj().imag}
    copied = Snapshot().copy(state)
    assert torch.equal(copied["conjugate"], torch.tensor([1 - 2j, 3 + 4j]))
    assert torch.equal(copied["negative"], torch.tensor([-2.0, 4.0]))
    assert torch.equal(copied["values"], values)


def test_a_sparse_tensor_is_copied() -> None:
    sparse = torch.eye(3).to_sparse()
    copied = Snapshot().copy({"s": sparse})["s"]
    assert torch.equal(copied.to_dense(), torch.eye(3))
    assert copied is not sparse


@pytest.mark.parametrize(
    "mapping",
    [
        collections.Counter({2: 2, 7: 1}),
        collections.OrderedDict(b=1, a=[2]),
        collections.defaultdict(list, {"x": [1]}),
    ],
    ids=lambda mapping: type(mapping).__name__,
)
def test_a_mapping_keeps_its_kind_its_order_and_its_values(mapping: Any) -> None:
    snapshot = Snapshot()
    for _ in range(2):
        copied = snapshot.copy({"m": mapping})["m"]
        assert type(copied) is type(mapping)
        assert copied == mapping
        assert list(copied) == list(mapping)
        assert copied is not mapping


def test_a_state_dict_keeps_the_versions_of_its_modules() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    copied = Snapshot().copy({"state_dict": state})["state_dict"]
    assert copied._metadata == state._metadata  # type: ignore[attr-defined]
    assert copied._metadata is not state._metadata  # type: ignore[attr-defined]


def test_numbers_of_numpy_become_pythons_which_weights_only_reads() -> None:
    state = {"a": numpy.float64(0.1), "b": [numpy.int64(3), numpy.bool_(True)]}
    copied = Snapshot().copy(state)
    assert copied == {"a": 0.1, "b": [3, True]}
    assert [type(copied["a"]), *map(type, copied["b"])] == [float, int, bool]


def test_only_copies_from_cuda_are_begun_without_waiting_for_their_end() -> None:
    waits: list[bool] = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.copy_.default:
                waits.append(not (len(args) > 2 and args[2]) and not (kwargs or {}).get("non_blocking"))
            return func(*args, **(kwargs or {}))

    with Copies():
        Snapshot().copy({"weights": torch.ones(3), "more": [torch.ones(2)]})
    assert waits == [True, True]


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_cores_that_are_free_copy_a_large_state_in_pieces(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(snapshot, "_WORTH_THREADS", 1)
    monkeypatch.setattr(snapshot, "_PIECE", 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    names: set[str] = set()
    started = snapshot.ThreadPoolExecutor.submit

    def submit(self: Any, *arguments: Any) -> Any:
        names.add(self._thread_name_prefix)
        return started(self, *arguments)

    monkeypatch.setattr(snapshot.ThreadPoolExecutor, "submit", submit)
    content = {
        "whole": torch.randn(1000),
        "turned": torch.randn(30, 40).t(),
        "part": torch.randn(100)[::2],
        "half": torch.randn(33, 5).bfloat16(),
        "number": torch.tensor(1.5),
        "none": torch.empty(0),
        "complex": torch.randn(40, dtype=torch.complex64),
    }
    maker = Snapshot()
    for _ in range(2):
        copied = maker.copy(content)
        assert list(differences(content, copied)) == []
        content["whole"].add_(1)
        assert list(differences(content, copied))
    assert names == ({"darkit-copy"} if cores > 1 else set())
