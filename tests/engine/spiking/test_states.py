"""Hidden state of neurons: reset as the tutorials do it by hand, or kept, saved and restored; never mixed."""

from __future__ import annotations

import json
from typing import Any

import lightning
import pytest
import snntorch
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

import darkit
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.engine.spiking.states import NeuronStates
from darkit.errors import ConfigError
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.spiking import tutorials

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "batch_size": 8,
    "tensorboard": False,
    "loss": F.cross_entropy,
    "lr": 1e-2,
    "optimizer": "sgd",
    "fused": False,
    "eval_step_interval": 2,
}


class Hidden(nn.Module):
    """One time step a call; what a batch leaves in the neurons is there for the next one."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.hidden = hidden
        self.net = nn.Sequential(
            nn.Linear(12, hidden), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(hidden, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def in_order(samples: int = 24) -> list[tuple[Tensor, Tensor]]:
    x, y = tutorials.currents(samples)
    return [(a, b) for a, b in zip(x, y, strict=True)]


def loader() -> Any:
    return torch.utils.data.DataLoader(in_order(), batch_size=8)


def by_hand(model: nn.Module, keeps: bool, steps: int) -> list[float]:
    """The loop of the tutorials: the state is reset, or detached, before every batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses: list[float] = []
    while len(losses) < steps:
        for x, y in loader():
            for part in model.modules():
                if isinstance(part, snntorch.Leaky):
                    part.mem.detach_() if keeps else part.reset_mem()
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses[:steps]


@pytest.mark.parametrize("keeps", [False, True])
def test_training_is_that_of_a_loop_that_resets_or_keeps_the_state_by_hand(keeps: bool) -> None:
    torch.manual_seed(0)
    model = Hidden()
    other = Hidden()
    other.load_state_dict(model.state_dict())
    run = darkit.fit(model, loader(), loader(), max_step=6, reset_state=not keeps, **SETTINGS)
    assert run.log()["train_loss"].to_list() == pytest.approx(by_hand(other, keeps, 6), rel=1e-6)
    assert by_hand(Hidden(), False, 6) != by_hand(Hidden(), True, 6)


def test_every_batch_of_an_evaluation_begins_reset_whatever_the_training_keeps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Hidden()
    settings = {**SETTINGS, "eval_step_interval": 4, "reset_state": False}
    run = darkit.fit(model, loader(), torch.utils.data.DataLoader(in_order(20), batch_size=8), max_step=4, **settings)
    kept = model.net[1].mem.clone()
    assert kept.any()
    total = 0.0
    with torch.no_grad():
        for x, y in torch.utils.data.DataLoader(in_order(20), batch_size=8):
            model.net[1].reset_mem()
            total += F.cross_entropy(model(x), y, reduction="sum").item()
    assert run.log()["val_loss"].drop_nulls().to_list() == pytest.approx([total / 20], rel=1e-6)
    assert "every batch of an evaluation begins with a reset one" in " ".join(capsys.readouterr().err.split())


def test_a_state_that_is_kept_is_said_saved_and_restored(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    initial = Hidden().state_dict()

    def train(name: str, stop: int, **more: Any) -> darkit.Run:
        model = Hidden()
        model.load_state_dict(initial)
        common = {**SETTINGS, "save_step_interval": 2, "reset_state": False}
        return darkit.fit(model, loader(), loader(), name=name, max_step=stop, **{**common, **more})

    straight = train("straight", 6)
    assert "is kept from batch to batch, without its gradient, and saved" in " ".join(capsys.readouterr().err.split())
    train("broken", 4)
    broken = train("broken", 6, resume=True)
    one, other = (read_checkpoint(find_checkpoint(run.path, 6)) for run in (straight, broken))
    assert list(differences(one, other)) == []
    assert one["neuron_states"]["net.1"]["mem"].shape == (8, 6)
    assert straight.log().drop("time").equals(broken.log().drop("time"))
    train("reset", 2, reset_state=True)
    assert "neuron_states" not in read_checkpoint(find_checkpoint(darkit.load("reset").path, 2))
    with pytest.raises(ConfigError, match="reset_state"):
        train("reset", 4, resume=True)


def test_a_state_at_an_error_is_that_of_the_last_step() -> None:
    class Failing(Hidden):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Failing.calls += 1
            found = super().forward(x)
            if Failing.calls == 5:
                raise ZeroDivisionError("theirs")
            return found

    torch.manual_seed(0)
    initial = Failing().state_dict()
    common = {**SETTINGS, "save_step_interval": 2, "reset_state": False}

    def train(cls: type[nn.Module], name: str, stop: int, **more: Any) -> darkit.Run:
        model = cls()
        model.load_state_dict(initial)
        return darkit.fit(model, loader(), name=name, max_step=stop, **common, **more)

    train(Hidden, "straight", 3)
    with pytest.raises(ZeroDivisionError):
        train(Failing, "failed", 6)
    saved = [read_checkpoint(find_checkpoint(darkit.load(name).path, 3)) for name in ("straight", "failed")]
    states = [content["neuron_states"]["net.1"]["mem"] for content in saved]
    assert torch.equal(*states)


def test_what_has_no_state_is_not_spoken_of() -> None:
    assert not NeuronStates(nn.Linear(2, 2))
    assert NeuronStates(nn.Linear(2, 2)).describe() == ""


class Lit(lightning.LightningModule):
    """A module whose neurons are reset by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Hidden()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.model.net[1].mem.detach_()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def test_a_lightning_module_decides_itself_and_its_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    module = Lit()
    other = Hidden()
    other.load_state_dict(module.model.state_dict())
    run = darkit.fit(module, loader(), max_step=6, device="cpu", tensorboard=False)
    assert run.log()["train_loss"].to_list() == pytest.approx(by_hand(other, True, 6), rel=1e-6)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("snntorch's parts model.net.1 is left to the LightningModule") == 1
    assert "reset_state" not in json.loads((run.path / "trainer_config.json").read_text())
    with pytest.raises(ConfigError, match=r"reset_state is not for a LightningModule.*leave it out"):
        darkit.fit(Lit(), loader(), max_step=6, device="cpu", reset_state=False)


def test_a_plain_model_under_lightnings_loop_is_reset_and_never_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    model = Hidden()
    other = Hidden()
    other.load_state_dict(model.state_dict())
    beside = {**SETTINGS, "callbacks": [EarlyStopping("val_loss", patience=100)]}
    run = darkit.fit(model, loader(), loader(), max_step=6, **beside)
    assert run.log()["train_loss"].to_list() == pytest.approx(by_hand(other, False, 6), rel=1e-6)
    assert " ".join(capsys.readouterr().err.split()).count("net.1 is reset before every batch") == 1
    assert not model.net[1].mem.any()
    with pytest.raises(ConfigError, match="reset_state is not possible beside the callback EarlyStopping"):
        darkit.fit(Hidden(), loader(), loader(), max_step=6, **{**beside, "reset_state": False})
