"""Forks of checkpoints made by earlier versions, which do not record what code gave to its optimizer."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch

from darkit.errors import ConfigError, ReproductionWarning
from darkit.runs import Run
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.parts import xy
from tests.engine.resuming import STEPS, run_one
from tests.engine.test_fork import assert_continues, sgd


def as_earlier(run: Run, step: int) -> None:
    """Leave out of a checkpoint what earlier versions did not record."""
    path = find_checkpoint(run.path, step).path
    content = torch.load(path, weights_only=True)
    del content["given_settings"]
    path.with_suffix(".json").unlink()
    torch.save(content, path)


def test_another_setting_than_an_earlier_versions_checkpoint_restores_holds_or_is_refused() -> None:
    parent = run_one(xy, "parent", optimizer=sgd())
    as_earlier(parent, 4)
    assert_continues(parent, run_one(xy, "same", fork="parent:4", optimizer=sgd()), 4)
    child = run_one(xy, "child", fork="parent:4", optimizer=sgd(lr=0.002))
    assert child.fork["changes"] == {"optimizer.lr": [0.01, 0.002]}
    assert child.log()["lr"].to_list() == [0.002] * (STEPS - 4)
    with pytest.raises(ConfigError, match=r"so optimizer\.momentum 0\.5 -> 0\.9 has no effect"):
        run_one(xy, "other", fork="parent:4", optimizer=sgd(momentum=0.9))
    callbacks: dict[str, Any] = {"callbacks": lambda: [lightning.Callback()]}
    with pytest.warns(
        ReproductionWarning, match=r"code or a callback .* so optimizer\.lr 0\.01 -> 0\.002 has no effect"
    ):
        child = run_one(xy, "unsure", fork="parent:4", optimizer=sgd(lr=0.002), **callbacks)
    assert child.fork["changes"] == {}
    assert child.log()["lr"].to_list() == [0.01] * (STEPS - 4)
