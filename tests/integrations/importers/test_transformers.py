"""transformers' ``trainer_state.json``: the history that a Trainer has written is what the run holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import base
from tests.integrations.importers.parts import by_name, command, imported, only_run, points, tree

SCRIPT = """
import json
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1))
data = [{"input_ids": torch.arange(8) % 16, "labels": torch.arange(8) % 16} for _ in range(24)]
arguments = TrainingArguments(
    "out", num_train_epochs=2, per_device_train_batch_size=4, logging_steps=2, save_steps=5, eval_strategy="steps",
    eval_steps=4, report_to=[], use_cpu=True, disable_tqdm=True,
)
trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data[:4])
trainer.train()
trainer.save_state()
print("\\n" + json.dumps(trainer.state.log_history))
"""


@pytest.fixture(scope="module")
def written(python: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("transformers")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [python, "script.py"],
        cwd=folder, env=os.environ | {"HOME": str(folder)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "out", json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def out(written: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written[0], tmp_path / "out"))


def wanted(history: list[dict[str, Any]]) -> dict[str, Any]:
    return by_name(
        (name, row["step"], value) for row in history for name, value in row.items() if name not in ("step", "epoch")
    )


def test_the_rows_are_those_of_the_trainers_history(out: Path, written: tuple[Path, list[dict[str, Any]]]) -> None:
    (outcome,) = imported(out)
    found = points(only_run())
    epochs = found.pop("epoch")
    assert found == wanted(written[1])
    assert set(epochs) == {(row["step"], row["epoch"]) for row in written[1]}
    assert (outcome.state, only_run().details.step, only_run().details.max_step) == ("finished", 12, 12)
    assert only_run().config["model"]["n_embd"] == 8
    assert only_run().config["num_train_epochs"] == 2
    assert outcome.name == "out"


def test_an_output_folder_with_checkpoints_is_one_run_that_grows(
    out: Path, written: tuple[Path, list[dict[str, Any]]]
) -> None:
    (out / "trainer_state.json").rename(out.parent / "last.json")
    later = [path for path in out.glob("checkpoint-*") if path.name != "checkpoint-5"]
    for path in later:
        path.rename(out.parent / path.name)
    (first,) = imported(out)
    assert (first.state, only_run().details.step) == ("unknown", 5)
    assert "step 5 of 12" in only_run().details.reason
    rows = [row for row in written[1] if row["step"] <= 5]
    assert {name: one for name, one in points(only_run()).items() if name != "epoch"} == wanted(rows)
    (out.parent / "last.json").rename(out / "trainer_state.json")
    for path in later:
        (out.parent / path.name).rename(path)
    (second,) = imported(out)
    assert (second.action, second.state, second.name) == ("updated", "finished", first.name)
    assert {name: one for name, one in points(only_run()).items() if name != "epoch"} == wanted(written[1])


def test_one_checkpoint_can_be_named(out: Path) -> None:
    (outcome,) = imported(out / "checkpoint-5")
    assert outcome.name == "out-checkpoint-5"


def test_the_source_is_not_touched_and_a_second_import_writes_nothing(out: Path) -> None:
    before = tree(out)
    imported(out)
    runs = tree(base())
    assert {outcome.action for outcome in imported(out)} == {"unchanged"}
    assert (tree(base()), tree(out)) == (runs, before)


def test_a_half_written_state_gives_way_to_an_older_one(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = out / "trainer_state.json"
    state.write_text(state.read_text()[:-100])
    last = out / "checkpoint-12" / "trainer_state.json"
    last.write_text(last.read_text()[: len(last.read_text()) // 2])
    assert command(out) == 0
    assert only_run().details.step == 10
    for path in out.rglob("trainer_state.json"):
        path.write_text("{")
    assert command(out) == 1
    assert "is not a whole JSON object" in capsys.readouterr().err


def test_a_training_that_was_stopped_early_has_stopped(out: Path) -> None:
    state = json.loads((out / "trainer_state.json").read_text())
    shutil.rmtree(out)
    out.mkdir()
    stopped = {"TrainerControl": {"args": {"should_training_stop": True}}}
    odd = [{"step": 1, "loss": float("nan")}, 5, {"loss": 1.0}, {"step": "2", "loss": 1.0}]
    content = state | {"global_step": 8, "stateful_callbacks": stopped, "log_history": odd}
    (out / "trainer_state.json").write_text(json.dumps(content))
    (outcome,) = imported(out)
    assert outcome.state == "stopped"
    assert points(only_run()) == {"loss": [(1, "NaN")]}
    assert len(outcome.problems) == 2
