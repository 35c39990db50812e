"""Real digits, split by a seed, never the same picture in both parts."""

from __future__ import annotations

import sys

import pytest
import torch

from darkit.data.digits import digits
from darkit.errors import DataError


def test_all_digits_are_there_once() -> None:
    choice = digits()
    train, val = choice.train[:], choice.val[:]
    assert (len(train[0]), len(val[0])) == (1438, 359)
    pictures = torch.cat((train[0], val[0]))
    assert (pictures.min(), pictures.max()) == (0, 1)
    assert len(pictures.unique(dim=0)) == len(pictures)
    assert torch.cat((train[1], val[1])).bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert choice.train.facts["label_names"] == list("0123456789")
    assert choice.settings == {"input_size": 64, "output_size": 10}


def test_a_seed_is_a_split() -> None:
    fingerprints = [digits(seed=seed).train.facts["split"]["fingerprint"] for seed in (1, 1, 2)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert torch.equal(digits(seed=1).val[:][0], digits(seed=1).val[:][0])
    assert not torch.equal(digits(seed=1).val[:][0], digits(seed=2).val[:][0])


def test_the_loss_comes_with_the_accuracy() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    found = digits().loss(logits, torch.tensor([0, 1]))
    assert found["accuracy"].item() == 0.5
    assert found["loss"].item() == pytest.approx(1.1269, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"val_fraction": 0}, "val_fraction must be above 0 and below 1, not 0"),
        ({"input_size": 28}, "input_size must be 64 for this data, not 28"),
        ({"output_size": 9}, "output_size must be 10 for this data, not 9"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        digits(**options)


def test_without_scikit_learn_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'darkit\[examples\]'"):
        digits()
