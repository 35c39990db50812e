"""What the first step computes is counted and recorded, and nothing of it is left in later steps."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from darkit.engine.callbacks.base import StepCallback
from darkit.engine.device import known_peak
from darkit.engine.steps import counting
from darkit.engine.steps.adapter import Adapter
from darkit.runs.work import read_work
from tests.engine.parts import LossMLP, equal_weights, made, train, xy

OF_A_BATCH = 2 * 8 * ((4 * 8 + 8) + (4 * 8 + 8) + 8)  # forward; gradients of both weights, and of the hidden layer


class Looks(StepCallback):
    """Looks at the adapter's functions after the first step."""

    def on_step(self, trainer: Any, pl_module: Any, outputs: Any, step: int) -> None:
        assert isinstance(pl_module, Adapter)
        if step == 1:
            self.found = [pl_module._compute, pl_module._backward, pl_module._step]
            self.own = [pl_module.compute, Tensor.backward, pl_module._step_directly]


def uncount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no operations and see no calls."""
    monkeypatch.setattr(counting.ModuleCalls, "seen", lambda self: nullcontext())
    monkeypatch.setattr(counting, "OperationCounter", nullcontext)
    monkeypatch.setattr(nullcontext, "flops", 0, raising=False)
    monkeypatch.setattr(nullcontext, "uncounted", (), raising=False)


class Words(nn.Module):
    """Rows of eight tokens, each met by 3 x 5 weights; some parameters are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 3), nn.Linear(3, 5)
        self.embed.requires_grad_(False)

    def training_step(self, batch: tuple[Tensor]) -> Tensor:
        return self.head(self.embed(batch[0])).square().mean()  # type: ignore[no-any-return]


def test_the_first_step_is_counted_as_by_hand_and_the_later_ones_are_free() -> None:
    looks = Looks()
    run = train(made(), xy(), batch_size=8, max_step=3, callbacks=[looks], peak_flops=2e12)
    work = read_work(run.info)
    assert work is not None
    assert (work.flops, work.samples, work.tokens, work.uncounted) == (OF_A_BATCH, 8, None, "")
    assert work.parameters == work.trained == 4 * 8 + 8 + 8 + 1
    assert (work.peak, work.peak_source) == (2e12, "peak_flops")
    assert work.utilization(1e6) == pytest.approx(OF_A_BATCH * 1e6 / 2e12)
    assert looks.found == looks.own


def test_accumulated_batches_are_one_step() -> None:
    run = train(made(), xy(), batch_size=4, gradient_accumulation_steps=2, max_step=2)
    work = read_work(run.info)
    assert work is not None
    assert (work.flops, work.samples) == (OF_A_BATCH, 8)
    assert (work.peak, work.utilization(1.0)) == (None, None), "the peak of a CPU is not known"


def test_tokens_and_frozen_parameters() -> None:
    work = read_work(train(Words(), TensorDataset(torch.ones(8, 8, dtype=torch.long)), batch_size=4, max_step=1).info)
    assert work is not None
    assert (work.samples, work.tokens) == (4, 32)
    assert (work.parameters, work.trained) == (11 * 3 + 3 * 5 + 5, 3 * 5 + 5)
    assert work.flops == 2 * 32 * 15 * 2  # the inputs of the head need no gradient


def test_counting_changes_no_bit_and_a_resumed_run_keeps_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = LossMLP(), LossMLP()
    other.load_state_dict(model.state_dict())
    train(model, xy(), max_step=4, batch_size=8, name="counted")
    run = train(model, xy(), max_step=6, batch_size=8, name="counted", resume=True)
    work = read_work(run.info)
    assert work is not None
    assert work.flops == OF_A_BATCH
    uncount(monkeypatch)
    train(other, xy(), max_step=6, batch_size=8)
    assert equal_weights(model, other)


def test_a_compiled_model_is_not_counted() -> None:
    class Compiled(LossMLP):
        def compile(self, **options: Any) -> None:
            super().compile(backend="eager", **options)

    work = read_work(train(Compiled(), xy(), max_step=1, compile=True).info)
    assert work is not None
    assert (work.flops, work.uncounted) == (None, "compile=true")


@pytest.mark.parametrize("whole", [False, True])
def test_code_that_the_user_compiles_is_compiled_and_not_counted(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that saw into compiled code would keep torch from compiling it, in all later steps too."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph(*arguments)

        return run

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.call = self.layer if whole else torch.compile(self.layer, backend=backend)

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x).square().mean()  # type: ignore[no-any-return]

    found, works = [], []
    for _ in range(2):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = torch.compile(Inside(), backend=backend) if whole else Inside()
        works.append(read_work(train(model, (torch.randn(24, 4),), max_step=6, batch_size=4).info))
        found.append(len(calls))
        calls.clear()
        uncount(monkeypatch)
    torch._dynamo.reset()
    assert found[0] == found[1] >= 6
    assert works[0] is not None
    assert (works[0].flops, works[0].uncounted) == (None, "torch.compile")


def test_the_short_last_batch_of_an_epoch_does_not_take_the_place_of_a_whole_step() -> None:
    data = TensorDataset(*xy(20))
    run = train(made(), data, name="resumed", batch_size=8, max_step=2)
    again = train(made(), data, name="resumed", batch_size=8, max_step=4, resume=True, peak_flops=1e12)
    work = read_work(again.info)
    assert work is not None
    assert (work.samples, work.flops, work.peak) == (8, OF_A_BATCH, 1e12)
    train(made(), data, name="resumed", batch_size=2, max_step=5, resume=True, resume_overrides=True)
    changed = read_work(run.info)
    assert changed is not None
    assert (changed.samples, changed.flops) == (2, OF_A_BATCH // 4)


def test_only_known_peaks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_peak("cpu", "32-true") == (None, "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert known_peak("cuda", "bf16-mixed") == (989e12, "data sheet of H200")
    assert known_peak("cuda", "64-true") == (None, "")
    for name, peak, known in (
        ("NVIDIA H100 80GB HBM3", 989e12, "H100"),
        ("NVIDIA H100 PCIe", 756.5e12, "H100 PCIe"),
        ("NVIDIA H200 NVL", 835.5e12, "H200 NVL"),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert known_peak("cuda", "bf16-mixed") == (peak, f"data sheet of {known}")
    for name in ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        assert known_peak("cuda", "bf16-mixed") == (None, "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GeForce RTX 4090")
    assert known_peak("cuda", "32-true") == (82.6e12, "data sheet of RTX 4090")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # products in TF32, which have another peak
    try:
        assert known_peak("cuda", "32-true") == (None, "")
    finally:
        torch.set_float32_matmul_precision(before)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Another")
    assert known_peak("cuda", "bf16-mixed") == (None, "")
    assert known_peak("cuda", "bf16-mixed", 1e12) == (1e12, "peak_flops")
