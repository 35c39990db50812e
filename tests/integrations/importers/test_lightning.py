"""What Lightning's CSVLogger and TensorBoardLogger have written is what the runs hold."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from darkit.runs import base, load
from darkit.runs.media import read_media
from tests.integrations.importers.parts import by_name, command, expected, imported, only_run, points, tree

SCRIPT = """
import torch
import lightning
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


class Lit(lightning.LightningModule):
    def __init__(self, lr=0.1, deep={"a": 1}, activation=torch.nn.ReLU, sizes=(2, 3)):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch).mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        if index == 3 and isinstance(self.loggers[-1], TensorBoardLogger):
            self.loggers[-1].experiment.add_text("note", "a text", self.global_step)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


data = torch.utils.data.DataLoader(torch.randn(20, 2), 2)
both = {"name": "lightning_logs", "version": 0}
loggers = {
    "csv": [CSVLogger("csv", name="lightning_logs")],
    "tb": [TensorBoardLogger("tb", name="lightning_logs")],
    "both": [CSVLogger("both", **both), TensorBoardLogger("both", **both)],
}
for chosen in loggers.values():
    trainer = lightning.Trainer(
        max_epochs=2, logger=chosen, log_every_n_steps=3, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Lit(), data, data)
"""


@pytest.fixture(scope="module")
def written(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightning")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [python, "script.py"],
        cwd=folder, env=os.environ | {"HOME": str(folder)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def logs(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "project"))


def rows_of(file: Path) -> list[tuple[str, int, Any]]:
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return [
        (name, int(row["step"]), float(text)) for row in rows for name, text in row.items() if text and name != "step"
    ]


def test_the_rows_are_those_of_metrics_csv(logs: Path) -> None:
    (outcome,) = imported(logs / "csv")
    found, wanted = points(load(outcome.name)), by_name(rows_of(logs / "csv/lightning_logs/version_0/metrics.csv"))
    assert {name: found[name] for name in found if name != "epoch"} == {
        name: wanted[name] for name in wanted if name != "epoch"
    }
    assert set(found["epoch"]) == set(wanted["epoch"])  # training and validation of one step share a row and its epoch
    assert found["val_loss"][0][0] == found["train_loss_epoch"][0][0]


def test_hyperparameters_are_the_config_and_no_code_in_them_runs(logs: Path) -> None:
    (outcome,) = imported(logs / "csv")
    assert load(outcome.name).config == {
        "lr": 0.1,
        "deep": {"a": 1},
        "activation": "torch.nn.modules.activation.ReLU",
        "sizes": [2, 3],
    }
    assert "do not record" in load(outcome.name).details.reason


def test_the_events_are_those_of_tensorboards_reader(logs: Path) -> None:
    (outcome,) = imported(logs / "tb")
    run = load(outcome.name)
    reader = EventAccumulator(str(logs / "tb/lightning_logs/version_0")).Reload()
    wanted = {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    assert points(run) == expected(wanted)
    assert run.info["origin"]["kind"] == "lightning"
    assert run.config["lr"] == 0.1
    assert [medium.key for medium in read_media(run.path)] == ["note/text_summary"] * 2


def test_both_loggers_in_one_folder_are_one_run(logs: Path) -> None:
    (outcome,) = imported(logs / "both")
    run = load(outcome.name)
    wanted = by_name(rows_of(logs / "both/lightning_logs/version_0/metrics.csv"))
    assert points(run, ["train_loss_step", "val_loss"]) == {
        name: wanted[name] for name in ("train_loss_step", "val_loss")
    }
    assert "hp_metric" in run.log().columns  # only the events have it
    assert len(read_media(run.path)) == 2


def test_names_come_from_the_folders_that_tell_something(logs: Path) -> None:
    assert {outcome.name for outcome in imported(logs)} == {
        f"project-{name}-lightning_logs-version_0" for name in ("csv", "tb", "both")
    }


def test_a_version_alone_is_named_by_the_folders_above_it(logs: Path) -> None:
    assert [outcome.name for outcome in imported(logs / "csv/lightning_logs/version_0")] == [
        "csv-lightning_logs-version_0"
    ]


def test_the_source_is_not_touched_and_a_second_import_writes_nothing(logs: Path) -> None:
    before = tree(logs)
    imported(logs)
    runs = tree(base())
    assert {outcome.action for outcome in imported(logs)} == {"unchanged"}
    assert tree(base()) == runs
    assert tree(logs) == before


def test_new_rows_and_new_columns_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "version_0"
    folder.mkdir()
    (folder / "metrics.csv").write_text("epoch,step,loss\n0,1,0.5\n0,2,0.2")
    (first,) = imported(folder)
    assert "1 lines of metrics.csv" in first.problems[0]
    (folder / "metrics.csv").write_text("epoch,step,loss\n0,1,0.5\n0,2,0.25\n")
    (second,) = imported(folder)
    assert (second.action, second.new_rows, second.problems) == ("updated", 1, ())
    (folder / "metrics.csv").write_text("epoch,step,loss,val\n0,1,0.5,\n0,2,0.25,\n0,2,,nan\n1,3,inf,word\n")
    imported(folder)
    assert points(only_run()) == {
        "epoch": [(1, 0), (2, 0), (3, 1)],
        "loss": [(1, 0.5), (2, 0.25), (3, float("inf"))],
        "val": [(2, "NaN"), (3, "word")],
    }


@pytest.mark.parametrize(
    "text", ["epoch,step\n", "step,loss\n1\n1,2,3\n", 'step,loss\n1,"2\n', "step\x00,loss\n1,2\n", "loss\n1\n", ""]
)
def test_odd_files_make_no_error(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    assert command(tmp_path) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_hyperparameters_that_name_classes_are_only_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2\n")
    (tmp_path / "hparams.yaml").write_text(
        "a: !!python/object/apply:os.system ['touch hacked']\nb: !!python/object:x.Y {z: 1}\n"
        "c: &c [1]\nd: *c\n<<: {e: 2}\n"
    )
    imported(tmp_path)
    assert not Path("hacked").exists()
    assert json.dumps(only_run().config) == json.dumps(
        {"a": ["touch hacked"], "b": {"z": 1}, "c": [1], "d": [1], "<<": {"e": 2}}
    )
