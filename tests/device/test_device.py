"""What depends on the device: all of it on a GPU, and what a CPU can check without one."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import Tensor, nn

from tests.benchmarks.gpt import Sizes
from tests.device import checks
from tests.device.__main__ import main, planned
from tests.device.models import Wide

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: run python -m tests.device there")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_resume_is_exact_in_a_precision(precision: str) -> None:
    (row,) = checks.resumes_exactly("cpu", precision)

    assert row.good, row


def test_waits_are_counted_in_the_middle_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []

    def set_mode(mode: str) -> None:
        modes.append(mode)

    def waiting(self: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if modes[-1:] == ["warn"]:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return forward(self, x, y)

    forward = Wide.forward
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    monkeypatch.setattr(Wide, "forward", waiting)
    rows = checks.no_step_waits("cpu")

    assert [row.value for row in rows] == [f"1.00 (test_device.py:{waiting.__code__.co_firstlineno + 2})"] * 3
    assert not any(row.good for row in rows)
    assert modes[-1] == "default"


def test_the_models_whose_speed_is_compared_train() -> None:
    (row,) = checks.speed_of_gpt("cpu", Sizes(64, 16, 1, 2, 16), steps=1, compiled=False)

    assert re.fullmatch(r"[0-9.]+x of [0-9.e+]+", row.value)


def test_without_a_gpu_the_script_says_that_nothing_was_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert main() == 2
    assert "nothing was checked" in capsys.readouterr().err


@GPU
@pytest.mark.parametrize("name", [name for name, _ in planned("cuda", 1)])
def test_on_a_gpu(name: str) -> None:
    rows = dict(planned("cuda", torch.cuda.device_count()))[name]()

    assert all(row.good for row in rows), rows
