"""The spiking classifiers of events learn directions, with every surrogate, and what they may learn they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import darkit
from darkit.data.events import DIRECTIONS, events
from darkit.errors import DataError
from darkit.models.csnn import CSNN, CSNNConfig
from darkit.models.spiking import SURROGATES
from darkit.models.srnn import SRNN, SRNNConfig
from tests.cli.parts import done


def made(kind: type[nn.Module], **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    config = {CSNN: CSNNConfig, SRNN: SRNNConfig}[kind]
    return kind(config(**changes))


@pytest.mark.parametrize("kind", [CSNN, SRNN])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate_gives_every_parameter_a_gradient(kind: type[nn.Module], surrogate: str) -> None:
    model = made(kind, surrogate=surrogate, learn_beta=True, learn_threshold=True)
    x, y = events(samples=16, val_samples=1).train[:]
    nn.functional.cross_entropy(model(x), y).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []
    names = dict(model.named_parameters())
    assert sum(name.endswith(("beta", "threshold")) for name in names) == (4 if kind is CSNN else 2)
    learnt = made(kind, learn_beta=False)
    assert not [name for name, _ in learnt.named_parameters() if name.endswith(("beta", "threshold"))]


@pytest.mark.parametrize("kind", [CSNN, SRNN])
def test_a_sample_is_classified_alone_as_among_others(kind: type[nn.Module]) -> None:
    model = made(kind).eval()
    x, _ = events(samples=4, val_samples=1).train[:]
    with torch.no_grad():
        torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["csnn", "srnn"])
def test_a_training_on_events_learns_and_has_a_receipt(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = (
        "data.samples=512",
        "data.val_samples=128",
        "trainer.max_step=80",
        "trainer.warmup_step=5",
        "trainer.lr=1e-2",
    )
    done(capsys, "train", f"model={name}", "name=run", *few, "model.config.learn_beta=true")
    run = darkit.load("run")
    log = run.log()
    assert log["val_loss"].drop_nulls()[-1] < 1.95 < 2.07
    assert log["firing_rate"].drop_nulls().is_between(0.001, 0.9).all()
    assert log["synops"].drop_nulls()[-1] < log["synops_dense"].drop_nulls()[-1] / 2
    assert "of the dense twin" in " ".join(done(capsys, "show", "run", "--spiking").split())


def test_events_are_those_of_moving_edges_and_the_direction_is_in_their_order() -> None:
    choice = events(samples=64, val_samples=8, noise=0.0)
    x, y = choice.train[:]
    assert x.shape == (64, 10, 2, 12, 12)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert not (x[:, :, 0] * x[:, :, 1]).any(), "no pixel becomes brighter and darker at once"
    assert sorted(y.unique().tolist()) == list(range(8))
    assert torch.equal(x, events(samples=64, val_samples=8, noise=0.0).train[:][0])
    assert not torch.equal(x, events(samples=64, val_samples=8, noise=0.0, seed=1).train[:][0])
    right = x[y == DIRECTIONS.index("right")]
    columns = torch.arange(12.0)
    for sample in right:  # brighter pixels are ahead of darker ones, but where the disk leaves at the edge
        ahead = (sample[:, 0].sum(1) * columns).sum(1) / sample[:, 0].sum((1, 2))
        behind = (sample[:, 1].sum(1) * columns).sum(1) / sample[:, 1].sum((1, 2))
        assert ((ahead - behind) > 0).float().mean() > 0.5
    assert 0.04 < events(samples=64, val_samples=1, noise=0.05).train[:][0].mean() < 0.12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 0}, "samples must be a whole number of at least 1, not 0"),
        ({"time_steps": 1}, "time_steps must be a whole number of at least 2, not 1"),
        ({"size": 4.5}, "size must be a whole number of at least 6, not 4.5"),
        ({"noise": 1.0}, "noise must be from 0 to below 1, not 1.0"),
        ({"output_size": 4}, "output_size must be 8 for this data, not 4"),
        ({"step_size": 4}, "step_size must be 288 for this data, not 4"),
    ],
)
def test_events_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        events(**settings)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (CSNN, {"channels": []}, "channels must have at least one convolution"),
        (
            CSNN,
            {"surrogate": "step"},
            "surrogate must be one of atan, fast_sigmoid, sigmoid, straight_through, not 'step'",
        ),
        (CSNN, {"learn_beta": 1}, "learn_beta must be true or false, not 1"),
        (SRNN, {"hidden_size": 0}, "hidden_size must be a whole number, at least 1, not 0"),
        (SRNN, {"beta": 1}, "beta must be a number from 0 to below 1, not 1"),
        (SRNN, {"threshold": 0}, "threshold must be a number above 0, not 0"),
    ],
)
def test_what_cannot_be_is_refused(kind: type[nn.Module], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(kind, **changes)
