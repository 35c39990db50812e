"""``darkit verify-resume``: equal for what goes on exactly, and the first difference for what does not."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch

from darkit.cli.main import main
from darkit.core import Predicter
from darkit.runs import load
from darkit.runs.lock import is_locked
from tests.children import Zygote
from tests.cli.parts import refused
from tests.engine.spiking import tutorials
from tests.faults.parts import wait_until

SMALL = ("data.samples=64", "data.val_samples=8", "trainer.batch_size=4", "trainer.eval_step_interval=20")
INEXACT = '''
import time

import torch
from torch import nn


class Inexact(nn.Module):
    """Depends on something that no checkpoint holds."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        self.size = size
        self.layer = nn.Linear(12, 12)
        self.calls = 0

    def loss(self, batch):
        time.sleep(0.01)
        self.calls += 1
        x, y = batch
        return (self.layer(x) - y).square().mean() * (1 + 0.01 * self.calls)
'''


MANY_KINDS = '''
import datasets
import torch
import torchmetrics
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, TensorDataset, WeightedRandomSampler


class Net(nn.Module):
    """Has running means, dropout and a metric of its own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))
        self.error = torchmetrics.MeanSquaredError()

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        out = self(x)
        self.error.update(out.detach().float(), y)
        return {"loss": nn.functional.mse_loss(out, y), "error": self.error}


def sampled(workers: int = 2, context: str = "fork"):
    x = torch.randn(62, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    batches = BatchSampler(WeightedRandomSampler(torch.arange(1.0, 63.0), 62), 4, False)
    context = {"multiprocessing_context": context} if workers else {}
    return {"train": DataLoader(data, batch_sampler=batches, num_workers=workers, **context), "val": data}


def streamed(buffer: int = 20):
    x = torch.randn(62, 4, generator=torch.Generator().manual_seed(1))
    rows = datasets.Dataset.from_dict({"x": x.tolist(), "y": x.sum(1, keepdim=True).tolist()}).with_format("torch")
    return rows.to_iterable_dataset().shuffle(seed=1, buffer_size=buffer)
'''
SETTINGS = {"net": "width: 8\n", "sampled": "workers: 2\ncontext: fork\n", "streamed": "buffer: 20\n"}
KINDS = {
    "batch sampler, forked workers, bf16, accumulation over the end of an epoch": [
        "data=sampled",
        "trainer.precision=bf16-mixed",
        "trainer.gradient_accumulation_steps=3",
        "trainer.scheduler=cosine",
    ],
    "spawned workers": ["data=sampled", "data.context=spawn", "trainer.max_step=40"],
    "a stream with a shuffle buffer": ["data=streamed"],
    "compiled": ["data=sampled", "data.workers=0", "trainer.compile=true", "trainer.max_step=40"],
}

TUTORIALS = {  # of the spiking libraries: the network, its data, its loss
    "snntorch 5": ("tutorials.FeedForward", "currents", "torch.nn.functional.cross_entropy"),
    "snntorch 6": ("tutorials.Convolutional", "pictures", "tests.engine.spiking.tutorials.rate_loss"),
    "snntorch 7": ("tutorials.Convolutional", "movies", "tests.engine.spiking.tutorials.rate_loss"),
    "spikingjelly LIF": ("jelly.Lif", "currents", "torch.nn.functional.cross_entropy"),
    "spikingjelly CSNN": ("jelly.Csnn", "pictures", "torch.nn.functional.cross_entropy"),
    "norse": ("norses.Recurrent", "currents", "torch.nn.functional.cross_entropy"),
}
SPIKING_DATA = """
import pkgutil

from darkit.data.sources.choice import DataChoice
from tests.engine.spiking import tutorials


def made(kind: str = "", loss: str = ""):
    data = getattr(tutorials, kind)()
    return DataChoice(data, data, loss=pkgutil.resolve_name(loss))
"""


@pytest.fixture
def warm(zygote: Zygote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the trainings be children of a warm process, which die a moment after the command that is killed."""
    kill = os.killpg

    def kill_both(group: int, number: int) -> None:
        kill(group, number)
        wait_until(lambda: not is_locked(tmp_path / "kept" / "base" / "broken"), "the end of the training")

    monkeypatch.setattr(os, "killpg", kill_both)
    monkeypatch.setattr(sys, "executable", zygote.python)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_many_kinds_of_model_and_data_are_equal(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinds.py").write_text(MANY_KINDS)
    for group, names in (("model", {"net": "Net"}), ("data", {"sampled": "sampled", "streamed": "streamed"})):
        (tmp_path / "configs" / group).mkdir(parents=True)
        for name, target in names.items():
            (tmp_path / "configs" / group / f"{name}.yaml").write_text(f"_target_: kinds.{target}\n{SETTINGS[name]}")
    words = ["verify-resume", "model=net", "trainer.max_step=60", "trainer.save_step_interval=7", *KINDS[kind]]
    code = main([*words, "--kills", "2", "--seed", "5"])
    said = capfd.readouterr()
    assert code == 0, said
    assert "EQUAL: after " in said.out


@pytest.mark.usefixtures("warm")
def test_a_run_of_ones_own_that_goes_on_exactly_is_equal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], home: Path
) -> None:
    kept = tmp_path / "kept"
    words = ["verify-resume", "model=mymodel", *SMALL, "trainer.max_step=400", "trainer.save_step_interval=25"]
    code = main([*words, "--kills", "2", "--seed", "3", "--keep", str(kept)])
    out = capfd.readouterr().out
    assert code == 0, out
    assert re.search(
        r"EQUAL: after [12] kills, weights, optimizer, schedule, generators, batches and log of all 400 steps are the ",
        out,
    )
    assert re.search(r"Killed after step \d+; resuming from its last checkpoint", out)
    runs = [load(name, root=kept / "base") for name in ("straight", "broken")]
    assert [run.status for run in runs] == ["finished", "finished"]
    assert len(runs[1].info["continued"]) >= 1
    assert not home.exists(), "the person's own runs are let alone"


@pytest.mark.soak
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_of_a_spiking_library_is_equal_and_predicts_by_name(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, kind, loss = TUTORIALS[name]
    for group, text in (
        ("model", f"_target_: tests.engine.spiking.{network}\n" + ("channels: 2\n" if name == "snntorch 7" else "")),
        ("data", f"_target_: spiking_data.made\nkind: {kind}\nloss: {loss}\n"),
    ):
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / "theirs.yaml").write_text(text)
    (tmp_path / "spiking_data.py").write_text(SPIKING_DATA)
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "kept"
    words = ["verify-resume", "model=theirs", "data=theirs", "trainer.batch_size=8", "trainer.eval_step_interval=100"]
    words += ["trainer.max_step=120", "trainer.save_step_interval=25"]
    code = main([*words, "--kills", "1", "--seed", "2", "--keep", str(kept)])
    out, err = capfd.readouterr()
    assert code == 0, out + err
    assert "EQUAL: after 1 kill" in out
    samples = getattr(tutorials, kind)()[0][:3]
    monkeypatch.setenv("DARWIN_KIT_HOME", str(kept))
    answers = [Predicter.from_pretrained(run, "cpu").predict(samples) for run in ("straight", "broken")]
    assert torch.equal(*answers)


@pytest.mark.usefixtures("warm")
def test_a_model_whose_state_is_not_in_the_checkpoint_is_different(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inexact.py").write_text(INEXACT)
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "model" / "inexact.yaml").write_text("_target_: inexact.Inexact\nsize: 12\n")
    monkeypatch.chdir(tmp_path)
    words = ["verify-resume", "model=inexact", "data=mine", "trainer.max_step=60", "--kills", "1", "--seed", "1"]
    words += ["--keep", str(tmp_path / "kept")]
    data = tmp_path / "configs" / "data"
    data.mkdir()
    (data / "mine.yaml").write_text("_target_: darkit.data.regression\nsamples: 64\nval_samples: 8\n")
    code = main(words)
    out = capfd.readouterr().out
    assert code == 1, out
    assert re.search(r"DIFFERENT: the log at step \d+, column train_loss: ", out)


@pytest.mark.usefixtures("warm")
def test_a_training_that_fails_says_what_it_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", "model=mymodel", "trainer.lr=-1"]) == 2
    err = capfd.readouterr().err
    assert "Error: The training failed with exit code 2 and said: Error: lr must be at least 0" in err


def test_what_cannot_be_verified_is_refused_before_it_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "verify-resume", "--kills", "0") == "--kills must be at least 1, not 0."
    said = refused(capsys, "verify-resume", "--keep", str(tmp_path))
    assert said == f"The folder {tmp_path} already exists. Choose a new one."
