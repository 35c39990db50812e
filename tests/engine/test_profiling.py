"""Where the time of a step goes."""

from __future__ import annotations

import time

import pytest
from torch import Tensor

from darkit.engine.profiling import PARTS, Profile, StepProfile, measured_peak, verdict
from tests.engine.parts import LossMLP, equal_weights, train, xy


class Slow(LossMLP):
    """Waits in its forward pass."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if self.training:
            time.sleep(0.004)
        found: dict[str, Tensor] = super().forward(x, y)
        return found


def test_parts_operations_and_sizes_are_measured_and_the_training_is_the_same() -> None:
    profile, model, other = StepProfile(6), Slow(), Slow()
    other.load_state_dict(model.state_dict())
    run = train(model, xy(), batch_size=8, max_step=profile.last, save_step_interval=100, callbacks=[profile])
    found = profile.result
    assert set(found.parts) == {*PARTS}
    assert 0.004 <= found.parts["forward"] < found.measured
    assert found.seconds > 0.004
    assert found.parts["save"] > 0
    assert found.work.samples == 8
    assert found.work.flops == 2 * 8 * ((4 * 8 + 8) + (4 * 8 + 8) + 8)  # forward; gradients of weights, of the hidden
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["forward"] == max(found.shares.values())
    assert verdict(found).startswith("The model itself takes ")
    assert found.work.peak_source == "measured with a product of matrices"
    assert found.operators[0][1] > 0
    last = run.log().row(-1, named=True)
    assert (last["flops"], last["parameters"]) == (found.work.flops, found.work.parameters)
    assert 0 < last["mfu"] < 1
    assert last["mfu"] == pytest.approx(found.work.flops / found.seconds / found.work.peak)
    assert last["ms_forward"] == pytest.approx(1000 * found.parts["forward"])
    assert [one.step for one in run.checkpoints()] == [profile.last - 1, profile.last]
    train(other, xy(), batch_size=8, max_step=profile.last)
    assert equal_weights(model, other)


@pytest.mark.parametrize(
    ("parts", "interval", "said"),
    [
        ({"data": 6.0, "forward": 1.0}, 0, "60% of a step goes to the part 'data': give num_workers="),
        ({"forward": 1.0, "save": 40.0}, 10, "31% of a step goes to the part 'save'"),
        ({"forward": 1.0, "save": 40.0}, 0, "90% of a step goes to what is around the steps"),
        ({"forward": 4.0, "backward": 5.0}, 0, "The model itself takes 90% of a step (forward 40%, backward 50%)"),
    ],
)
def test_the_verdict_names_what_a_step_waits_for(parts: dict[str, float], interval: int, said: str) -> None:
    measured = 10.0 if "save" not in parts or not interval else 9.0
    whole = dict.fromkeys(PARTS, 0.0) | parts
    if interval:
        whole["backward"] = 8.0
    assert verdict(Profile(measured=measured, parts=whole, save_interval=interval)).startswith(said)


def test_the_peak_of_an_unknown_device_is_measured() -> None:
    peak, source = measured_peak("cpu", "32-true")
    assert peak > 1e8
    assert source == "measured with a product of matrices"
