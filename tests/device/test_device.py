"""What depends on the device: all of it on a GPU, and what a CPU can check without one."""

from __future__ import annotations

import pytest
import torch

from tests.device import checks
from tests.device.__main__ import main, planned

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: run python -m tests.device there")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_resume_is_exact_in_a_precision(precision: str) -> None:
    (row,) = checks.resumes_exactly("cpu", precision)

    assert row.good, row


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
