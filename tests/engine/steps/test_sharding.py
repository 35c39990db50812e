"""What ``strategy="fsdp"`` gathers at a time, and what it refuses before the first step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from darkit.engine.config import TrainerConfig
from darkit.engine.steps.sharding import ShardedAdapter, _refuse_parameters, find_blocks, refuse_strategy
from darkit.errors import BatchError, ConfigError, ModelError
from tests.engine.parts import made, run_names, train, xy


class Encoder(nn.Module):
    """A list of blocks with a list inside each, beside other layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(4, 4)] * 2)}) for _ in "ab"])
        self.tail = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
        self.tied = nn.ModuleList([nn.Linear(4, 5, bias=False), nn.Linear(4, 4)])
        self.tied[0].weight = self.embedding.weight


def test_blocks_are_the_children_of_the_outermost_lists_unless_they_share_weights_with_the_rest() -> None:
    model = Encoder()
    names = {part: name for name, part in model.named_modules()}
    found = [names[block] for block in find_blocks(model)]
    assert found == ["layers.0", "layers.1", "tail.0.0", "tail.1", "tied.1"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "deepspeed_stage_3"}, "strategy='deepspeed_stage_3' is not supported"),
        ({"strategy": "fsdp_cpu_offload"}, "strategy='fsdp_cpu_offload' is not supported"),
        ({"strategy": "xla"}, "strategy='xla' is not supported"),
        ({"device_num": 1}, "splits a model over several processes, but this training has one"),
        ({"ema_decay": 0.9}, "ema_decay is not possible with strategy='fsdp'"),
        ({"compile": True}, "compile is not possible with strategy='fsdp'"),
        ({"keep_optimizer": "last"}, "keep_optimizer='last' is not possible with strategy='fsdp'"),
        ({"precision": "16-mixed"}, "needs a precision of .*, not '16-mixed'"),
        ({"precision": "64-true"}, "needs a precision of .*, not '64-true'"),
        ({"optimizer": "adafactor"}, "for which Adafactor is not known to be right"),
        ({"optimizer": "lbfgs"}, "LBFGS computes the loss several times"),
    ],
    ids=str,
)
def test_what_is_not_possible_is_refused_and_leaves_nothing(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(made(), xy(), name="a", **({"device_num": 2, "strategy": "fsdp"} | settings))
    assert run_names() == []


def test_an_optimizer_of_the_whole_parameters_is_refused() -> None:
    model = made()
    with pytest.raises(ConfigError, match=r"give optimizer= as a callable of the parameters, such as torch.optim.SGD"):
        train(model, xy(), name="a", device_num=2, strategy="fsdp", optimizer=torch.optim.SGD(model.parameters()))
    refuse_strategy(TrainerConfig(strategy="fsdp"), 2, torch.optim.SGD)


def test_a_block_whose_parameters_are_used_without_it_is_explained() -> None:
    def fail(*arguments: Any) -> None:
        raise BatchError("Linear failed on a batch: got mixed torch.Tensor and DTensor")

    adapter: Any = SimpleNamespace(module=nn.Linear(1, 1))
    with pytest.raises(ModelError, match="Linear uses the parameters of a block without calling the block"):
        ShardedAdapter._computed(adapter, fail, fail)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (torch.zeros(()), "'odd' of Linear is a single number"),
        (torch.zeros(3, dtype=torch.complex64), "'odd' of Linear is complex"),
        (torch.zeros(3, dtype=torch.float64), "parameters of float32, float64"),
    ],
    ids=["scalar", "complex", "dtype"],
)
def test_parameters_that_cannot_be_split_are_named(parameter: torch.Tensor, said: str) -> None:
    model = nn.Linear(2, 2)
    model.odd = nn.Parameter(parameter)
    with pytest.raises(ModelError, match=said):
        _refuse_parameters(model)
