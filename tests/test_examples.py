"""The examples run as they are, each in a home of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import darkit

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


def test_the_handwritten_loop_learns_and_is_predicted_by_name(python: str) -> None:
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


def test_three_lines_learn_the_same(python: str) -> None:
    lines = run_example(python, "three_lines.py")
    (run,) = darkit.runs()
    assert run.status == "finished"
    assert lines[0] == f"{run.name} is finished: {run.path}"
    losses = run.log()["val_loss"].drop_nulls().to_list()
    assert losses[-1] < 0.5 * losses[0]
    assert lines[-1].startswith("predicted by name: [")


def test_own_text_becomes_a_model_that_goes_on_with_a_prompt(python: str) -> None:
    lines = run_example(python, "own_text.py")
    (run,) = darkit.runs()
    assert run.status == "finished"
    (loss,), (unigram,) = numbers(lines, "val_loss"), numbers(lines, "unigram model")
    assert loss < unigram - 0.5
    text = "\n".join(lines)
    assert len(text[text.index("def decode") :]) > 60


def test_a_spiking_language_model_tells_what_it_saves(python: str) -> None:
    lines = run_example(python, "spiking_language_model.py")
    (loss,), (unigram,) = numbers(lines, "val_loss"), numbers(lines, "unigram model")
    assert loss < unigram - 0.5
    assert 0 < numbers(lines, "synaptic operations saved:")[0] < 100
    assert len(numbers(lines, "block 1:")) == 1
    assert darkit.runs()[0].status == "finished"


def test_a_transformers_model_is_tuned_and_names_its_answers(python: str) -> None:
    lines = run_example(python, "fine_tuning.py")
    assert numbers(lines, "val_loss")[0] < 0.1
    assert "question" in lines[-2].partition(":")[2]
    assert "statement" in lines[-1].partition(":")[2]


def test_digits_are_told_by_spikes(python: str) -> None:
    lines = run_example(python, "classification.py")
    assert darkit.runs()[0].log()["val_accuracy"].drop_nulls()[-1] >= 0.95
    assert lines[-1].startswith("ten of them: [")
