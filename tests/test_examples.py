"""The examples run as they are, each in a home of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import darkit

CHECKOUT = Path(__file__).parents[1]


def run_example(name: str) -> list[str]:
    """Runs an example as a reader would; its run is in this test's home then.

    Returns:
        What it printed, line by line.
    """
    command = [sys.executable, f"examples/{name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=CHECKOUT)
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


def test_the_handwritten_loop_learns_and_is_predicted_by_name() -> None:
    lines = run_example("handwritten_loop.py")
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


def test_three_lines_learn_the_same() -> None:
    lines = run_example("three_lines.py")
    (run,) = darkit.runs()
    assert run.status == "finished"
    assert lines[0] == f"{run.name} is finished: {run.path}"
    losses = run.log()["val_loss"].drop_nulls().to_list()
    assert losses[-1] < 0.5 * losses[0]
    assert lines[-1].startswith("predicted by name: [")
