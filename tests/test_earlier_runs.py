"""Runs of an earlier version, kept in ``earlier``, are read, evaluated, predicted with and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import darkit
from darkit.cli.main import main
from darkit.core import Predicter
from darkit.runs.moved import present_name

EARLIER = Path(__file__).parent / "earlier"
ROW = [round(i / 12, 2) for i in range(12)]
ANSWER = [-0.18437731, 0.14702919, -0.08813456, 0.46834958, 0.08381239, 0.04171655]  # that version's own, its first six


@pytest.fixture(autouse=True)
def earlier_runs(home: Path) -> None:
    shutil.copytree(EARLIER, home / "base")


def test_an_earlier_run_is_listed_with_its_status() -> None:
    found = {run.name: run for run in darkit.runs()}
    assert sorted(found) == ["digits", "mymodel"]
    assert {run.status for run in found.values()} == {"finished"}
    assert found["mymodel"].log()["train_loss"].to_list()[-1] == pytest.approx(0.7482, abs=1e-4)


def test_an_earlier_run_predicts_what_it_predicted() -> None:
    (answer,) = Predicter.from_pretrained("mymodel").predict(torch.tensor([ROW]))
    assert answer.tolist()[:6] == pytest.approx(ANSWER, abs=1e-6)


@pytest.mark.parametrize(("name", "loss"), [("mymodel", 0.9446), ("digits", 2.3587)])
def test_an_earlier_run_is_evaluated_on_its_own_data(
    name: str, loss: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["loss"] == pytest.approx(loss, abs=1e-4)


def test_an_earlier_run_is_resumed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "resume=mymodel", "trainer.max_step=8"]) == 0, capfd.readouterr()
    run = darkit.load("mymodel")
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [3, 6, 8]


@pytest.mark.parametrize("module", ["tables", "regression", "text", "windows"])
def test_a_config_may_name_a_function_by_the_module_that_it_was_in(module: str) -> None:
    old = {"tables": "table_data", "regression": "regression", "text": "text_data", "windows": "TokenWindows"}[module]
    assert present_name(f"darkit.data.{module}.{old}") == f"darkit.data.{old}"
    assert hasattr(darkit.data, old)  # type: ignore[attr-defined]


def test_a_config_of_an_earlier_run_with_a_moved_name_is_evaluated(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = home / "base" / "mymodel" / "config.yaml"
    old, new = "_target_: darkit.data.regression\n", "_target_: darkit.data.regression.regression\n"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    assert main(["eval", "mymodel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["loss"] == pytest.approx(0.9446, abs=1e-4)
