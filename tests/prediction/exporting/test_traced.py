"""Exported programs answer as the model does, and what cannot be exported is refused; ONNX files likewise."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import darkit
from darkit.cli.main import main
from darkit.core import Predicter
from darkit.prediction.exporting import onnx_file, traced
from darkit.runs import load
from tests.prediction.exporting.parts import tokens

FORMATS = ("torch-export", "onnx")


class Convolutions(nn.Module):
    """As small networks of torchvision are: convolutions, batch norms, an adaptive pool and a skip."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 5)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.first(image)
        return self.head(self.pool(torch.relu(self.second(hidden) + hidden)).flatten(1))


class Attention(nn.Module):
    """An attention of three dimensions, which torch.onnx does not translate."""

    def __init__(self) -> None:
        super().__init__()
        self.ids, self.head = nn.Embedding(11, 4), nn.Linear(4, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.ids(ids)
        return self.head(nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.randn(2)


def train(model: nn.Module, data: Any, name: str = "run", **settings: Any) -> None:
    darkit.fit(model, data, max_step=2, batch_size=4, name=name, **settings)


def images() -> Any:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 8, 8, generator=generator), torch.randint(5, (16,), generator=generator)


def program(path: Path, batch: dict[str, Tensor] | Tensor) -> Any:
    module = torch.export.load(path).module()
    return module(**batch) if isinstance(batch, dict) else module(batch)


def session(path: Path, batch: dict[str, Tensor] | Tensor) -> Any:
    onnx.checker.check_model(str(path))
    runtime = onnxruntime.InferenceSession(path)
    names = [one.name for one in runtime.get_inputs()]
    values = batch if isinstance(batch, dict) else {names[0]: batch}
    assert list(values) == names
    found = runtime.run(None, {name: value.numpy() for name, value in values.items()})
    return dict(zip([one.name for one in runtime.get_outputs()], map(torch.as_tensor, found), strict=True))


def exported(format: str, folder: Path, batch: Any, name: str = "run") -> Any:
    """Export the run, and return the outputs of the file for a batch."""
    path = folder / ("out.onnx" if format == "onnx" else "out.pt2")
    assert main(["export", name, "--format", format, "--output", str(path)]) == 0
    found = program(path, batch) if format == "torch-export" else session(path, batch)
    return next(iter(found.values())) if isinstance(found, dict) else found


def refused(capsys: pytest.CaptureFixture[str], folder: Path, format: str, name: str = "run") -> str:
    folder.mkdir()
    capsys.readouterr()
    assert main(["export", name, "--format", format, "--output", str(folder / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert list(folder.iterdir()) == []
    return err.removeprefix("Error: ").strip()


def close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.few(1)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 7])
def test_convolutions_answer_alike_for_batches_of_any_size(home: Path, tmp_path: Path, format: str, rows: int) -> None:
    train(Convolutions(), images(), loss=nn.functional.cross_entropy)
    batch = torch.randn(rows, 3, 8, 8)
    wanted = Predicter.from_pretrained("run", "cpu").predict(batch)
    assert close(exported(format, tmp_path, batch), wanted)


@pytest.mark.few(1)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["gpt2", "lora"])
def test_models_of_transformers_take_named_sequences_of_any_length(
    runs: Path, tmp_path: Path, format: str, name: str
) -> None:
    batch = {"input_ids": torch.stack([one["input_ids"] for one in tokens()[:5]])[:, :6]}
    wanted = Predicter.from_pretrained(name, "cpu").predict(batch).logits
    assert close(exported(format, tmp_path, batch, name), wanted)


def test_an_onnx_file_names_its_outputs_and_what_it_was_made_of(runs: Path, tmp_path: Path) -> None:
    assert main(["export", "gpt2:1", "--format", "onnx", "--output", str(tmp_path / "a.onnx")]) == 0
    made = onnx.load(tmp_path / "a.onnx")
    facts = {one.key: one.value for one in made.metadata_props}
    step = load("gpt2").checkpoints()[0]
    assert [one.name for one in made.graph.output] == ["logits"]
    assert facts["checkpoint"] == step.name
    assert facts["sha256"] == step.sha256
    assert main(["export", "gpt2:1", "--format", "torch-export", "--output", str(tmp_path / "b.pt2")]) == 0
    files: dict[str, Any] = {"darkit.json": ""}
    torch.export.load(tmp_path / "b.pt2", extra_files=files)
    assert json.loads(files["darkit.json"])["sha256"] == step.sha256


@pytest.mark.parametrize("format", FORMATS)
def test_an_attention_of_three_dimensions_is_exported(home: Path, tmp_path: Path, format: str) -> None:
    ids = torch.randint(11, (16, 6))
    train(Attention(), (ids, ids), loss=lambda out, ids: nn.functional.cross_entropy(out.flatten(0, 1), ids.flatten()))
    batch = torch.randint(11, (3, 4))
    assert close(exported(format, tmp_path, batch), Predicter.from_pretrained("run", "cpu").predict(batch))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Branching, "run:iter-2-ckpt cannot be exported as .*: GuardOnDataDependentSymNode: Could not guard on data"),
        (Noisy, "The model of run 'run' gives another output each time"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_and_leaves_nothing(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    format: str,
    model: Callable[[], nn.Module],
    said: str,
) -> None:
    train(model(), (torch.randn(16, 4), torch.randn(16, 2)), loss=nn.functional.mse_loss)
    message = refused(capsys, tmp_path / "here", format)
    assert re.match(said, message), message
    assert "Use --format safetensors." in message


@pytest.mark.parametrize("format", FORMATS)
def test_a_program_that_answers_otherwise_gets_no_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(nn.Linear(4, 2), (torch.randn(16, 4), torch.randn(16, 2)), loss=nn.functional.mse_loss)
    export = torch.export.export

    def spoiled(module: Any, *args: Any, **settings: Any) -> Any:
        other = copy.deepcopy(module)
        other.model.bias.data[1] += 0.1
        return export(other, *args, **settings)

    monkeypatch.setattr(torch.export, "export", spoiled)
    assert "its output differs from the model's by" in refused(capsys, tmp_path / "here", format)


class Unrecorded(nn.Module):
    """No config of it can be recorded."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_a_model_that_was_not_recorded_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    train(Unrecorded(4), (torch.randn(16, 4), torch.randn(16, 2)), loss=nn.functional.mse_loss)
    said = refused(capsys, tmp_path / "here", format)
    assert said == (
        "The run 'run' has no recorded config of Unrecorded. Use --format safetensors, which needs the weights alone."
    )
    with darkit.start_run("loop") as run:
        run.log({"loss": 1.0})
        run.save()
    said = refused(capsys, tmp_path / "there", format, "loop")
    assert said.startswith("The run 'loop' was recorded without its model. Use --format safetensors")


def test_a_missing_package_is_named_with_its_extra(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else object())
    said = refused(capsys, tmp_path / "here", "onnx", "gpt2")
    assert said == "--format onnx needs onnxscript: pip install 'darkit[onnx]'."


def test_without_onnxruntime_the_reference_of_onnx_verifies(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = onnx_file.find_spec
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    train(nn.Linear(4, 2), (torch.randn(16, 4), torch.randn(16, 2)), loss=nn.functional.mse_loss)
    assert main(["export", "run", "--format", "onnx", "--output", str(tmp_path / "out.onnx")]) == 0


def test_weights_beyond_one_onnx_file_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_LARGEST", 1000)
    said = refused(capsys, tmp_path / "here", "onnx", "gpt2")
    assert "one ONNX file holds 2 GiB" in said


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([float("nan"), float("inf")], [float("nan"), float("inf")], 0.0),
        ([float("nan")], [1.0], float("inf")),
        ([float("inf")], [1.0], float("inf")),
        ([1.0], [1.0, 1.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_outputs_are_compared_by_their_largest_value(one: list[float], other: list[float], apart: float) -> None:
    assert traced.difference([torch.tensor(one)], [torch.tensor(other)]) == apart


def _own_models() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    """darkit's own models and their inputs."""
    from darkit.models import gpt, lstm, mlp, snn, spikebert, spikegpt

    sizes = {"vocab_size": 11, "num_layers": 1, "hidden_size": 8}
    ids, rows = torch.randint(11, (8, 6)), torch.randn(8, 6)
    return {
        "gpt": (lambda: gpt.GPT(gpt.GPTConfig(**sizes, context_length=6, num_heads=2)), ids),
        "lstm": (lambda: lstm.LSTM(lstm.LSTMConfig(**sizes)), ids),
        "mlp": (lambda: mlp.MLP(mlp.MLPConfig(input_size=6)), rows),
        "snn": (lambda: snn.SNN(snn.SNNConfig(input_size=6, time_steps=2)), rows),
        "spikebert": (
            lambda: spikebert.SpikeBERT(
                spikebert.SpikeBERTConfig(**sizes, context_length=6, num_heads=2, time_steps=2)
            ),
            ids,
        ),
        "spikegpt": (lambda: spikegpt.SpikeGPT(spikegpt.SpikeGPTConfig(**sizes, context_length=6)), ids),
    }


@pytest.mark.few(3)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["gpt", "lstm", "mlp", "snn", "spikebert", "spikegpt"])
def test_darkits_own_models_are_exported(home: Path, tmp_path: Path, format: str, name: str) -> None:
    make, inputs = _own_models()[name]
    train(
        make(), [(row, row) for row in inputs], loss=lambda model, batch: first(model(batch[0])).float().pow(2).mean()
    )
    batch = inputs[:5]
    wanted = Predicter.from_pretrained("run", "cpu").predict(batch)
    assert close(exported(format, tmp_path, batch), first(wanted))


def first(output: Any) -> Tensor:
    """The first tensor of an output."""
    found = next(iter(output.values())) if isinstance(output, dict) else output
    assert isinstance(found, Tensor)
    return found
