"""The training of several processes beside that of one, with the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import darkit
from darkit.runs import Run
from tests.children import Zygote
from tests.engine.ranks import Noting, Numbered, on_ranks, weights_of


def plain(name: str, ranks: int = 1, **settings: Any) -> dict[str, Any]:
    """A plain regression; the global batch has eight samples."""
    model = Noting()
    darkit.fit(
        model,
        Numbered(24),
        Numbered(10),
        name=name,
        device="cpu",
        device_num=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        batch_size=8 // ranks,
        optimizer="sgd",
        lr=0.1,
        max_step=6,
        eval_step_interval=3,
        tensorboard=False,
        **settings,
    )
    return {"weights": weights_of(model), "ids": model.ids}


def test_two_processes_end_with_the_weights_of_one(zygote: Zygote, home: Path) -> None:
    one = plain("one")
    two = on_ranks(zygote, home, plain, name="two")
    for name, expected in one["weights"].items():
        torch.testing.assert_close(two[0]["weights"][name], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(two[0]["weights"][name], two[1]["weights"][name])
    together = [sorted(first + second) for first, second in zip(two[0]["ids"], two[1]["ids"], strict=True)]
    assert together == [sorted(ids) for ids in one["ids"]], "the same samples at every step"
    logs = [Run(home / "base" / name).log() for name in ("one", "two")]
    for column in ("train_loss", "val_loss"):
        expected = logs[0][column].drop_nulls().to_list()
        assert logs[1][column].drop_nulls().to_list() == pytest.approx(expected, rel=1e-5)
