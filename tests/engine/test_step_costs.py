"""What a step does besides the model, in calls and not in seconds: a count grows when something is done anew each time.

The ceilings are what was counted, and a little more for new versions of torch and Lightning. Who raises one should know
why.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from darkit.engine.steps import adapter
from tests.engine.parts import train

CALLS_OF_A_STEP = 240
CALLS_OF_A_SAMPLE = 2
CALLS_OF_A_BATCH = 60
STEPS = 40


class Counting(nn.Module):
    """The guide's model; between its forward passes it counts the calls of Python functions in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 12), nn.Linear(12, 12)
        self.calls: Counter[str] = Counter()
        self.counts: dict[bool, list[Counter[str]]] = {True: [], False: []}

    def forward(self, inputs: Tensor) -> Tensor:
        sys.setprofile(None)
        self.counts[self.training].append(self.calls)
        self.calls = Counter()
        outputs = self.fc2(torch.relu(self.fc1(inputs)))
        sys.setprofile(self.note)
        return outputs

    def note(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.calls[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    def least(self, *, training: bool) -> Counter[str]:
        """The calls between two passes, without those that come only now and then."""
        return min(self.counts[training][5:-2], key=lambda calls: sum(calls.values()))


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """The data as a Dataset of one's own."""

    def __init__(self) -> None:
        self.inputs, self.targets = data()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


def data(length: int = STEPS * 4) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(length, 12)
    return inputs, inputs.roll(1, 1)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(adapter, "_STRETCH", 1e9)  # as on a machine on which Lightning's own calls come seldom
    yield Counting()
    sys.setprofile(None)


def run(model: nn.Module, given: Any, val_data: Any = None) -> None:
    """Train with everything on."""
    train(
        model,
        given,
        val_data,
        loss=F.mse_loss,
        optimizer="adam",
        max_step=STEPS,
        save_step_interval=STEPS // 2,
        eval_step_interval=STEPS // 2,
        tensorboard=True,
    )


def described(calls: Counter[str]) -> str:
    return "\n".join(f"{count} {name}" for name, count in calls.most_common(60))


def test_a_step_makes_few_calls(model: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorDataset, "__getitem__", _refuse)
    run(model, data())
    calls = model.least(training=True)
    assert calls.total() <= CALLS_OF_A_STEP, described(calls)


def test_a_sample_makes_few_calls(model: Counting) -> None:
    run(model, Samples())
    calls = model.least(training=True)
    fetched = [count for name, count in calls.items() if name.startswith(__file__) and name.endswith(":__getitem__")]
    assert fetched == [4]  # the samples of one batch, once each
    assert calls.total() <= CALLS_OF_A_STEP + 4 * CALLS_OF_A_SAMPLE, described(calls)


def test_a_batch_of_an_evaluation_makes_few_calls(model: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorDataset, "__getitem__", _refuse)
    run(model, data(), data())
    calls = model.least(training=False)
    assert calls.total() <= CALLS_OF_A_BATCH, described(calls)


def test_weights_are_updated_by_one_kernel(model: Counting) -> None:
    """Without it Adam does a dozen operations for each parameter."""
    run(model, data())
    names = {name.rpartition(":")[2] for name in model.least(training=True)}
    assert "_fused_adam" in names
    assert not names & {"_single_tensor_adam", "_multi_tensor_adam", "zero_grad"}


def _refuse(dataset: Any, index: int) -> Any:
    """Fail where a sample is loaded although whole batches could be; looking at the first one is not it."""
    if sys.getprofile() is not None:
        raise AssertionError("one sample was loaded")
    return tuple(tensor[index] for tensor in dataset.tensors)
