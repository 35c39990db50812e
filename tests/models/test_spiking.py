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
from darkit.models.spiking import SURROGATES, LeakyNeurons


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


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("in_arrays", [True, False])
def test_what_is_learnt_has_the_gradients_of_snntorch(
    surrogate: str, in_arrays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spiking, "has_own_backward", lambda values: in_arrays)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 9, 4, generator=generator).requires_grad_()
    weights = torch.randn(3, 9, 4, generator=generator)
    library = snntorch.surrogate
    makers = (library.atan, library.fast_sigmoid, library.sigmoid, library.straight_through_estimator)
    theirs = dict(zip(SURROGATES, makers, strict=True))
    if surrogate == "sigmoid":
        inputs = (inputs.detach() * 0.3).requires_grad_()  # far below the threshold, theirs is NaN
    one = snntorch.Leaky(beta=0.8, threshold=0.6, spike_grad=theirs[surrogate](), learn_beta=True, learn_threshold=True)
    other = LeakyNeurons(0.8, 0.6, surrogate, learn_beta=True, learn_threshold=True)
    assert [name for name, _ in other.named_parameters()] == ["beta", "threshold"]
    potential, fired = torch.zeros(3, 4), []
    for step in inputs.unbind(1):
        spikes, potential = one(step, potential)
        fired.append(spikes)
    wanted = torch.stack(fired, 1)
    spikes, _ = other(inputs)
    assert torch.equal(spikes, wanted)
    gradients = torch.autograd.grad((wanted * weights).sum(), (inputs, one.beta, one.threshold))
    found = torch.autograd.grad((spikes * weights).sum(), (inputs, other.beta, other.threshold))
    for mine, expected in zip(found, gradients, strict=True):
        assert expected.any()
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learns", ["beta", "threshold"])
def test_one_of_both_is_learnt_and_beta_stays_a_share(learns: str) -> None:
    inputs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    neurons = LeakyNeurons(0.5, 0.5, **{f"learn_{learns}": True})
    neurons(inputs)[0].sum().backward()
    ((name, parameter),) = neurons.named_parameters()
    assert name == learns
    assert parameter.grad is not None
    assert parameter.grad.any()
    if learns == "beta":
        parameter.data.fill_(1.5)
        assert torch.equal(neurons(inputs)[1], LeakyNeurons(1.0, 0.5)(inputs)[1])


def test_the_sigmoid_is_that_of_snntorch_where_that_is_a_number() -> None:
    far = torch.tensor([-90.0, -4.0, 4.0, 90.0])
    near = torch.linspace(-1.0, 1.0, 41)
    excess = torch.cat((near, far)).requires_grad_()
    spikes = spiking.surrogate("sigmoid")(excess)
    theirs = snntorch.surrogate.sigmoid()(excess)
    assert torch.equal(spikes, theirs)
    (found,) = torch.autograd.grad(spikes.sum(), excess)
    (wanted,) = torch.autograd.grad(theirs.sum(), excess)
    torch.testing.assert_close(found[:41], wanted[:41], rtol=1e-4, atol=1e-6)
    assert wanted.isnan().any()
    assert not found[41:].any()


def test_what_is_learnt_is_exported() -> None:
    inputs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)) * 2
    neurons = LeakyNeurons(0.5, 0.5, learn_beta=True, learn_threshold=True)
    exported = torch.export.export(neurons, (inputs,)).module()
    assert torch.equal(exported(inputs)[0], neurons(inputs)[0])


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
