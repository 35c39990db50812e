"""What is compared of a run and its repetition."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from torch.nn.functional import cross_entropy

import darkit
from darkit.engine.steps.own_settings import OwnSettings
from darkit.reproduction.comparing import compare
from darkit.runs import Run
from tests.engine.native.modules import Base, samples


def trained(kind: str, name: str) -> Run:
    lightning.seed_everything(0, verbose=False)
    if kind == "lightnings":
        return darkit.fit(Base(), samples(), name=name, max_step=3, device="cpu", tensorboard=False)
    made = torch.nn.Linear(4, 3)
    return darkit.fit(made, samples(), name=name, max_step=3, device="cpu", tensorboard=False, loss=cross_entropy)


@pytest.mark.parametrize("kind", ["own", "lightnings"])
def test_settings_that_an_earlier_version_did_not_record_are_no_difference(kind: str) -> None:
    def nothing(self: OwnSettings, *given: Any) -> set[str]:
        return set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OwnSettings, "compare_settings", nothing)
        earlier = trained(kind, "earlier")
    found = compare(earlier, trained(kind, "again"), 0, 3)
    assert found.checkpoints == 1
    assert found.place == ""
