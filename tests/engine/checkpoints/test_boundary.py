"""The generators' states at the end of a step are read only where they may have changed, and never missed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from darkit.engine.checkpoints.boundary import Boundary


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize(
    "draw", [random.random, lambda: random.gauss(0, 1), lambda: random.seed(3), lambda: random.getrandbits(4), int]
)
def test_every_draw_of_pythons_generator_is_seen(draw: Callable[[], Any], found: bool) -> None:
    boundary = Boundary()
    assert boundary._python_address, "CPython keeps the state elsewhere: every step is slower"
    boundary._python_address *= found
    for _ in range(3):
        boundary.record(nn.Linear(1, 1))
        version, internal, gauss = random.getstate()
        assert boundary.generators()["python"] == [version, list(internal), gauss]
        draw()


@pytest.mark.parametrize("draw", [numpy.random.rand, numpy.random.randn, lambda: numpy.random.seed(3), int])
def test_every_draw_of_numpys_generator_is_seen(draw: Callable[[], Any]) -> None:
    boundary = Boundary()
    for _ in range(4):  # of every two normal numbers the second comes from a cache
        boundary.record(nn.Linear(1, 1))
        kind, keys, *rest = numpy.random.get_state(legacy=True)
        assert boundary.generators()["numpy"] == [kind, keys.tolist(), *rest]
        draw()


def test_buffers_are_those_of_the_end_of_the_step_whatever_became_of_them() -> None:
    part = nn.Module()
    model = nn.Sequential(nn.BatchNorm1d(2), part, part)
    model.register_buffer("own", torch.zeros(1))
    model[1].register_buffer("count", torch.zeros(1))
    model[1].register_buffer("passing", torch.zeros(1), persistent=False)
    boundary = Boundary()
    for value in (1.0, 2.0, 3.0):
        model[0].running_mean.fill_(value)
        model[1].count = torch.full((int(value),), value)
        boundary.record(model)
        expected = {
            key: buffer.clone()
            for key, buffer in model.state_dict().items()
            if key not in dict(model.named_parameters())
        }
        model[0].running_mean.add_(1)
        model[1].count.add_(1)
        found = boundary.buffers()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], buffer) for key, buffer in expected.items())


def test_a_large_buffer_is_watched_instead_of_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.engine.checkpoints.boundary._LARGE", 8)
    model, boundary = nn.BatchNorm1d(3), Boundary()
    boundary.record(nn.BatchNorm1d(4))  # of a training before
    boundary.record(model)
    assert list(boundary.buffers()) == ["num_batches_tracked"]
    model.running_mean.add_(1)
    with pytest.raises(ValueError, match="'running_mean' has changed"):
        boundary.buffers()
    model.running_var = torch.zeros(3)
    boundary.record(model)
    model.running_var = torch.ones(3)
    with pytest.raises(ValueError, match="'running_var' has changed"):
        boundary.buffers()
