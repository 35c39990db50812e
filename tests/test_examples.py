"""The examples run as they are, each in a home of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import darkit
from darkit.cli.main import main
from tests.children import Zygote

CHECKOUT = Path(__file__).parents[1]


def run_example(python: str, name: str) -> list[str]:
    """Run an example as a reader would; its run is in this test's home then.

    Returns:
        What it printed, line by line.
    """
    command = [python, f"examples/{name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def assert_reproduces(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that the first steps of an example come out the same from what its run recorded."""
    monkeypatch.setattr(sys, "executable", python)
    assert main(["reproduce", darkit.runs()[0].name, "--steps", "5"]) == 0


def numbers(lines: list[str], before: str) -> list[float]:
    """The numbers that follow a word."""
    return [float(found) for line in lines for found in re.findall(rf"{re.escape(before)} ([\d.]+)", line)]


def test_the_model_of_the_examples_is_the_guides_and_that_of_the_configs() -> None:
    import torch
    import yaml
    from darkit.examples.mymodel import MyModel, MyModelConfig

    assert MyModel(MyModelConfig())(torch.ones(3, 12)).shape == (3, 12)
    assert list(MyModel(MyModelConfig()).state_dict()) == [
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
    ]
    config = yaml.safe_load((CHECKOUT / "configs/model/mymodel.yaml").read_text())
    assert config["_target_"] == f"{MyModel.__module__}.{MyModel.__qualname__}"


def test_the_handwritten_loop_learns_and_is_predicted_by_name(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_example(python, "handwritten_loop.py")
    (run,) = darkit.runs()
    assert run.status == "finished"
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [100, 200, 300, 400]
    assert run.log()["train_loss"].count() == 400
    losses, (mean,), (error,) = numbers(lines, "val_loss"), numbers(lines, "mean:"), numbers(lines, "error")
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == error < 0.5 * mean
    assert lines[0] == f"{run.name} is finished: {run.path}"
    assert lines[-1].startswith("MyPredicter found iter-400-ckpt by the run's name")
    assert len(lines) < 10
    assert_reproduces(python, monkeypatch)
    assert main(["reproduce", run.name, "--from", "iter-100"]) == 2, "its loop restores its state itself"


def test_three_lines_learn_the_same(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_example(python, "three_lines.py")
    (run,) = darkit.runs()
    assert run.status == "finished"
    assert lines[0] == f"{run.name} is finished: {run.path}"
    losses = run.log()["val_loss"].drop_nulls().to_list()
    assert losses[-1] < 0.5 * losses[0]
    assert lines[-1].startswith("predicted by name: [")
    assert_reproduces(python, monkeypatch)


@pytest.mark.soak
def test_own_text_becomes_a_model_that_goes_on_with_a_prompt(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_example(python, "own_text.py")
    (run,) = darkit.runs()
    assert run.status == "finished"
    (loss,), (unigram,) = numbers(lines, "val_loss"), numbers(lines, "unigram model")
    assert loss < unigram - 0.5
    text = "\n".join(lines)
    assert len(text[text.index("def decode") :]) > 60
    assert_reproduces(python, monkeypatch)


@pytest.mark.soak
def test_a_spiking_language_model_tells_what_it_saves(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_example(python, "spiking_language_model.py")
    (loss,), (unigram,) = numbers(lines, "val_loss"), numbers(lines, "unigram model")
    assert loss < unigram - 0.5
    assert 0 < numbers(lines, "energy saved:")[0] < 100
    assert len(numbers(lines, "block 1:")) == 1
    assert darkit.runs()[0].status == "finished"
    assert_reproduces(python, monkeypatch)


def test_a_transformers_model_is_tuned_and_names_its_answers(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_example(python, "fine_tuning.py")
    assert numbers(lines, "val_loss")[0] < 0.1
    assert "question" in lines[-2].partition(":")[2]
    assert "statement" in lines[-1].partition(":")[2]
    assert_reproduces(python, monkeypatch)


def test_digits_are_told_by_spikes(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_example(python, "classification.py")
    assert darkit.runs()[0].log()["val_accuracy"].drop_nulls()[-1] >= 0.95
    assert lines[-1].startswith("ten of them: [")
    assert_reproduces(python, monkeypatch)


def test_the_notebook_goes_from_a_spiking_model_to_a_report(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = nbformat.read(CHECKOUT / "examples/laboratory.ipynb", 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    kernel = tmp_path / "kernels/warm"
    kernel.mkdir(parents=True)
    words = [zygote.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("PATH", f"{zygote.commands}{os.pathsep}{os.environ['PATH']}")
    client = NotebookClient(notebook, timeout=120, kernel_name="warm", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    said = "".join(item.get("text", "") for cell in notebook.cells for item in cell.get("outputs", ()))
    assert "same: changed {}, weights equal the parent's: True" in said
    assert "slower: changed {'lr': [0.005, 0.001]}, weights equal the parent's: False" in said
    assert re.search(r"lif1 +Leaky +48 +6 ", said)
    assert re.search(r"[\d.]+ nJ per sample, [\d.]+% of the [\d.]+ nJ of the dense twin", said)
    assert re.search(r"beta-0.9 +5 ", said)
    assert re.search(r"beta-0.5 is \w+ than beta-0.9 by \S+: .*5 seeds", said)
    assert {run.status for run in darkit.runs()} == {"finished"}
    assert len(darkit.runs()) == 13
    assert "beta-0.9-seed=0" in (tmp_path / "laboratory.html").read_text()
    capsys.readouterr()
    assert main(["reproduce", darkit.runs()[0].name, "--steps", "5"]) == 2
    assert "was started in a notebook, whose cells no file of the run holds." in capsys.readouterr().err
