"""``darkit find`` and ``darkit profile``: short runs that measure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import darkit
from darkit.runs.notes import read_notes
from tests.cli.parts import done, refused, write
from tests.engine.parts import made, train, xy

WORDS = ("model=mymodel", "data.samples=64", "data.val_samples=8", "trainer.device=cpu")


def test_a_learning_rate_is_found_in_a_run_with_its_chart(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "find", "lr", *WORDS, "--steps", "60", "--low", "1e-4", "--high", "100")
    assert re.search(
        r"The loss falls fastest at lr \S+; a tenth of the lr of the lowest loss is \S+\. It diverged", out
    )
    (run,) = darkit.runs()
    assert run.name.startswith("find-lr-")
    assert f"The chart is in the run {run.name}." in out
    assert run.series == {name: ["log10_lr", name] for name in ("train_loss", "smoothed_loss")}
    assert run.log()["lr"][0] == 1e-4
    assert read_notes(run.path).note in out
    assert " predict " not in out
    assert "resume=" not in out
    tenth = re.search(r"lowest loss is (\S+)\. It", out)
    assert tenth is not None
    assert out.splitlines()[-1].endswith(f"darkit train {' '.join(WORDS)} trainer.lr={tenth[1]}")


MODULE = """import lightning, torch
from torch.nn.functional import mse_loss
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(12, 12)
    def training_step(self, batch, index):
        return mse_loss(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.log("val_loss", self.training_step(batch, index))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
"""


def test_a_learning_rate_of_a_lightning_module_is_found_and_its_steps_are_not_profiled(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "ranged.py", MODULE)
    write(tmp_path / "configs/model/ranged.yaml", "_target_: ranged.Module\n")
    words = ("model=ranged", "data=regression", *WORDS[1:])
    out = done(capsys, "find", "lr", *words, "--steps", "60", "--low", "1e-4", "--high", "100")
    (run,) = darkit.runs()
    assert run.log()["lr"][0] == pytest.approx(1e-4)
    assert len(run.log()["smoothed_loss"].drop_nulls()) >= 10
    assert re.search(r"Try an lr of \S+ to \S+ in Module's configure_optimizers\.", out)
    assert "trainer.lr=" not in out
    said = refused(capsys, "profile", *words, "--steps", "5")
    assert said.startswith("Module is trained by Lightning's own loop, but only darkit's own loop can be profiled")
    assert [one.name for one in darkit.runs()] == [run.name]


def test_a_batch_size_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "find", "batch", *WORDS, "trainer.batch_size=3", "--max", "4", "--steps", "1")
    assert "batch of 2: " in out
    assert re.search(r"A batch of \d is the fastest: \S+ samples/s\. .*trainer\.batch_size=\d\.", out)
    (run,) = darkit.runs()
    assert run.log()["batch_size"].to_list()[:2] == [1, 2]
    assert run.series["samples_per_second"] == ["batch_size", "samples_per_second"]
    assert run.config["trainer"]["device"] == "cpu"
    size = re.search(r"trainer\.batch_size=\d+", out)
    assert size is not None
    assert out.splitlines()[-1].endswith(f"darkit train {' '.join(WORDS)} {size[0]}")


def test_a_run_is_profiled_with_its_settings(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "profile", "text", "trainer.batch_size=3", "--steps", "5")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert {"data", "forward", "backward", "optimizer", "log", "save", "other"} <= lines.keys()
    assert "resume=" not in out
    assert "samples/s, " in lines["speed:"]
    assert "tokens/s" in lines["speed:"]
    (run,) = [one for one in darkit.runs() if one.name.startswith("profile-")]
    last = run.log().row(-1, named=True)
    assert last["tokens_per_second"] == pytest.approx(16 * last["samples_per_second"])
    assert run.trainer_config["batch_size"] == 3
    note = read_notes(run.path).note
    assert note.splitlines()[0] in out
    assert "MFU: " in note


def test_wrong_words_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "profile", "nope").startswith("There is no run 'nope'")
    assert refused(capsys, "profile", "text", "name=x").endswith("leave out name=.")
    assert refused(capsys, "profile", "text", "numbers").startswith("'numbers' is not a setting")
    assert refused(capsys, "profile", "text", "--steps", "1").startswith("--steps must be at least 5")
    assert refused(capsys, "find", "lr", "text", "--low", "2", "--high", "1").startswith("--low must be above 0")
    assert refused(capsys, "find", "lr", "text", "--steps", "3").startswith("--steps must be at least 10")
    assert refused(capsys, "find", "batch", "text", "--max", "0").startswith("--max must be at least 1")


@pytest.mark.parametrize("command", [("profile",), ("find", "lr"), ("find", "batch")])
def test_a_run_of_python_is_refused_and_no_other_model_measured(
    command: tuple[str, ...], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(made(), xy(), name="mine", max_step=1)
    said = refused(capsys, *command, "mine")
    assert said.startswith("The run 'mine' was not trained by darkit train")
    assert said.endswith("give model= and data= in place of its name.")
    assert [run.name for run in darkit.runs()] == ["mine"]


def test_the_energy_of_a_run_is_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "text/system_log.csv").write_text("time,step,gpu0_power\n0,1,360\n10,2,360\n")
    assert "1 Wh in 10 s (gpu0 1 Wh), whoever used them" in done(capsys, "show", "text")
    assert json.loads(done(capsys, "show", "text", "--json"))["energy"] == {
        "watt_hours": {"gpu0": 1.0},
        "seconds": 10.0,
    }
    assert json.loads(done(capsys, "show", "numbers", "--json"))["energy"] is None
