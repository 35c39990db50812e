"""Example inputs fit what a run recorded of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkit.errors import ConfigError
from darkit.prediction.exporting.examples import Layout, as_inference, find_layout
from darkit.runs import Run, files


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ids = nn.Embedding(7, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        return {"logits": self.ids(input_ids) * attention_mask[..., None]}


class Two(nn.Module):
    def forward(self, image: Tensor, number: Tensor) -> Tensor:
        return image.flatten(1).float().sum(1) + number


def layout_of(model: nn.Module, data: Any, folder: Path) -> Layout:
    files.write_json(folder / "run.json", {"data": data})
    return find_layout(
        Run(folder), model, lambda layout: layout.call(as_inference(model.eval(), layout), layout.make(2))
    )


def part(dtype: str, *shape: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape)}


def test_named_inputs_leave_out_the_labels(tmp_path: Path) -> None:
    fields = {name: part("int64", 5) for name in ("input_ids", "attention_mask", "labels", "other")}
    layout = layout_of(Named(), {"sample_parts": {"fields": fields}}, tmp_path)
    batch = layout.make(4)
    assert layout.named
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (4, 5),
        "attention_mask": (4, 5),
    }
    assert batch["input_ids"].max() < 7
    assert batch["attention_mask"].eq(1).all()
    assert not torch.equal(batch["input_ids"], layout.make(4, seed=1)["input_ids"])
    assert layout.make(4, shorter=2)["input_ids"].shape == (4, 3)


def test_all_parts_but_the_target_are_positional_inputs(tmp_path: Path) -> None:
    parts = [part("uint8", 3, 4, 4), part("float32"), part("int64")]
    layout = layout_of(Two(), {"sample_parts": parts}, tmp_path)
    batch = layout.make(4)
    assert list(batch) == ["image", "number"]
    assert batch["image"].dtype is torch.uint8
    assert batch["image"].max() > 100
    assert batch["number"].shape == (4,)


def test_what_earlier_runs_recorded_is_enough(tmp_path: Path) -> None:
    layout = layout_of(nn.Linear(12, 2), {"sample": "(float32[12], int64[])"}, tmp_path)
    assert layout.make(3)["input"].shape == (3, 12)


@pytest.mark.parametrize(
    "parts",
    [
        None,
        [],
        {"type": "Graph"},
        {"fields": 3},
        [part("float32", 2**40)],
        [{"dtype": "load", "shape": [1]}],
        [{"dtype": "float32", "shape": ["a"]}],
    ],
)
def test_a_sample_that_says_nothing_is_refused(tmp_path: Path, parts: Any) -> None:
    with pytest.raises(ConfigError, match="did not record the dtypes and shapes of a sample"):
        layout_of(nn.Linear(12, 2), {"sample_parts": parts}, tmp_path)


def test_a_sample_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fails on an input like its training samples \(RuntimeError: mat1"):
        layout_of(nn.Linear(12, 2), {"sample_parts": [part("float32", 5), part("int64")]}, tmp_path)
