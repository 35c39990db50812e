"""Leaky neurons in parallel are snntorch's one by one."""

from __future__ import annotations

import sys

import pytest
import snntorch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darkit.models import spiking
from darkit.models.spiking import LeakyNeurons


def one_by_one(inputs: Tensor, beta: float, threshold: float) -> Tensor:
    neuron = snntorch.Leaky(beta=beta, threshold=threshold, spike_grad=snntorch.surrogate.atan())
    potential = torch.zeros(inputs.shape[0], inputs.shape[2])
    spikes = []
    for step in inputs.unbind(1):
        fired, potential = neuron(step, potential)
        spikes.append(fired)
    return torch.stack(spikes, dim=1)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([0.5, 1.0]), st.integers(1, 12))
def test_spikes_and_gradients_are_those_of_snntorch(seed: int, beta: float, threshold: float, time: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, time, 3, generator=generator).requires_grad_()
    weights = torch.randn(2, time, 3, generator=generator)
    wanted = one_by_one(inputs, beta, threshold)
    (gradient,) = torch.autograd.grad((wanted * weights).sum(), inputs)
    spikes, _ = LeakyNeurons(beta, threshold)(inputs)
    (found,) = torch.autograd.grad((spikes * weights).sum(), inputs)
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


def test_going_on_from_what_is_left_is_as_in_one_piece() -> None:
    inputs = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
    neurons = LeakyNeurons(0.7, 1.0)
    whole, left = neurons(inputs)
    first, between = neurons(inputs[:, :9])
    second, ending = neurons(inputs[:, 9:], between)
    assert torch.equal(torch.cat((first, second), dim=1), whole)
    assert torch.equal(ending, left)
    assert set(whole.unique().tolist()) == {0.0, 1.0}


def test_without_snntorch_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snntorch", None)
    with pytest.raises(ImportError, match=r"need snntorch: pip install 'darkit\[snn\]'"):
        spiking.snntorch()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_and_tensors_run_the_neurons_to_the_same_bits(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(40, 2, 30, generator=generator, dtype=dtype) * 2
    rows[7, 0, :2] = torch.tensor([float("nan"), float("inf")])
    potential = torch.randn(2, 30, generator=generator, dtype=dtype)
    before, found = potential.clone(), []
    for run in (spiking._run_tensors, spiking._run_arrays):
        above, spikes = torch.empty_like(rows), torch.empty_like(rows)
        left = run(rows, potential, 0.9, 0.7, above, spikes)
        found.append(torch.cat([above.flatten(), spikes.flatten(), left.flatten()]))
    assert torch.equal(*(values.nan_to_num(12345.0) for values in found))
    assert torch.equal(potential, before)
