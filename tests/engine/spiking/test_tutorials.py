"""The spiking libraries' tutorials train untouched, resume exactly and predict by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import darkit
from darkit.core import Predicter
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.engine.metrics.undisturbed import undisturbed
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.spiking import tutorials

TUTORIALS: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "snntorch 5": (tutorials.FeedForward, tutorials.currents(), F.cross_entropy),
    "snntorch 6": (tutorials.Convolutional, tutorials.pictures(), tutorials.rate_loss),
    "snntorch 7": (lambda: tutorials.Convolutional(2), tutorials.movies(), tutorials.rate_loss),
    "spikingjelly LIF": (tutorials.lif_of_spikingjelly, tutorials.currents(), F.cross_entropy),
    "spikingjelly CSNN": (tutorials.csnn_of_spikingjelly, tutorials.pictures(), F.cross_entropy),
    "norse": (tutorials.lif_of_norse, tutorials.currents(), F.cross_entropy),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_goes_on_exactly_is_measured_and_predicts_by_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, data, loss = TUTORIALS[name]
    settings: dict[str, Any] = {"device": "cpu", "batch_size": 8, "tensorboard": False, "loss": loss, "lr": 1e-2}
    settings |= {"save_step_interval": 3, "eval_step_interval": 2}
    torch.manual_seed(0)
    model = make()
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    straight = darkit.fit(model, data, data, name="straight", max_step=6, **settings)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("reset_state=false keeps it") == (0 if name == "norse" else 1)
    for stop, more in ((3, {}), (6, {"resume": True})):
        again = make()
        again.load_state_dict(initial)
        broken = darkit.fit(again, data, data, name="broken", max_step=stop, **settings, **more)
    one, other = (read_checkpoint(find_checkpoint(run.path, 6)) for run in (straight, broken))
    assert list(differences(one, other)) == []
    logs = [run.log().drop("time").filter(pl.col("step") != 3) for run in (straight, broken)]
    assert logs[0].equals(logs[1]), "but for the first part's evaluation at its last step"
    rates = logs[0]["firing_rate"].drop_nulls()
    assert len(rates) == 3
    assert rates.is_between(0, 1).all()
    assert logs[0]["synops_dense"].drop_nulls()[-1] > 0
    x = data[0][:5]
    model.eval()
    with torch.no_grad(), undisturbed(model):
        wanted = model(x)
    found = Predicter.from_pretrained("straight", "cpu", model=make()).predict(x)
    assert torch.equal(found, wanted)
    assert torch.equal(Predicter.from_pretrained("straight", "cpu").predict(x), wanted)
