"""A class defined in a script is found again through the recorded script only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import darkit
from darkit.core import Predicter
from darkit.engine.description.scripts import load_script, script_of, sealed
from darkit.errors import ModelError
from darkit.runs import files, seal
from darkit.runs.home import home as home_folder

SCRIPT = """
import argparse, sys
from dataclasses import dataclass
import darkit
import torch
from torch import nn
from beside_the_script import scale

print("loading")
parser = argparse.ArgumentParser()
parser.add_argument("--name", default="none")
name = parser.parse_args().name

@dataclass
class Config:
    width: int = 3
    pair: tuple = (1, 2)

class Net(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        assert isinstance(config.pair, tuple)
        self.layer = nn.Linear(4, config.width)

    def forward(self, x):
        return scale(self.layer(x)).sum(1, keepdim=True)

if __name__ == "__main__":
    GUARD
"""
TRAINING = (
    "torch.manual_seed(0); x = torch.ones(8, 4); "
    "darkit.fit(Net(Config(5, (3, 4))), (x, x[:, :1]), loss=nn.MSELoss(), max_step=2, device='cpu', name=name)"
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "beside_the_script.py").write_text("def scale(x): return 2 * x\n")
    path = folder / "train_it.py"
    path.write_text(SCRIPT.replace("GUARD", TRAINING))
    return path


def start(python: str, script: Path, *arguments: str, folder: Path | None = None) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([python, str(script), *arguments], env=environment, cwd=folder, check=True, capture_output=True)


def test_a_run_of_a_script_is_predicted_from_elsewhere(
    python: str, script: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    start(python, Path(script.name), "--name", "run", folder=script.parent)
    run = darkit.load("run")
    facts = run.info["model"]
    assert (facts["class"], facts["config_class"]) == ("__main__.Net", "__main__.Config")
    assert facts["script"]["path"] == str(script)
    arguments, paths = sys.argv, list(sys.path)
    predicter = Predicter.from_pretrained("run", "cpu")
    assert predicter.predict(torch.ones(1, 4)).shape == (1, 1)
    assert predicter.model.config.pair == (3, 4)
    assert type(predicter.model).__module__.startswith("darkit_script_")
    assert (sys.argv, sys.path) == (arguments, paths)
    assert capsys.readouterr().out == ""
    assert [found.name for found in darkit.runs()] == ["run"]  # what is behind the guard did not run
    assert not caplog.records
    again = Predicter.from_pretrained("run", "cpu")
    assert type(again.model) is type(predicter.model)

    script.write_text(script.read_text().replace("2 * x", "3 * x") + "\n# changed\n")
    Predicter.from_pretrained("run", "cpu")
    assert "has changed since the training" in caplog.text

    script.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ModelError, match=r"'__main__\.Net' of run 'run' cannot be found .*SystemExit.*model="):
        Predicter.from_pretrained("run", "cpu")
    script.unlink()
    with pytest.raises(ModelError, match=r"cannot be found .*train_it\.py cannot be read"):
        Predicter.from_pretrained("run", "cpu")


def test_a_script_that_trains_without_a_guard_is_loaded_up_to_there(python: str, script: Path) -> None:
    script.write_text(SCRIPT.replace('if __name__ == "__main__":\n    GUARD', TRAINING.replace("; ", "\n")))
    start(python, script, "--name", "run")
    assert Predicter.from_pretrained("run", "cpu").predict(torch.ones(1, 4)).shape == (1, 1)
    assert [run.name for run in darkit.runs()] == ["run"]


def recorded(path: Path) -> dict[str, Any]:
    return {"path": str(path), "sha256": "", "seal": seal.make(str(path))}


def test_only_a_script_that_this_home_recorded_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    planted = tmp_path / "planted.py"
    planted.write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n")
    mine = tmp_path / "mine.py"
    mine.write_text("class Net: pass\n")
    facts = recorded(mine)
    for wrong in (
        facts | {"path": str(planted)},
        facts | {"seal": ""},
        facts | {"seal": None},
        facts | {"seal": "é" * 64},
        facts | {"path": [str(mine)]},
        {"path": str(planted)},
        {},
    ):
        with pytest.raises(ModelError, match="was not recorded by this darkit home"):
            load_script(wrong, "run")
    assert load_script(facts, "run").Net.__module__.startswith("darkit_script_")
    assert not canary.exists()
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path / "another home"))
    with pytest.raises(ModelError, match="was not recorded by this darkit home"):
        load_script(facts, "run")
    assert not (tmp_path / "another home").exists()  # looking makes no key


def test_a_run_that_names_another_script_runs_nothing(python: str, script: Path, tmp_path: Path) -> None:
    start(python, script, "--name", "run")
    path = darkit.load("run").path / files.RUN
    canary = tmp_path / "canary"
    (darkit.load("run").path / "planted.py").write_text(f"open({str(canary)!r}, 'w')\n")
    info = json.loads(path.read_text())
    info["model"]["script"]["path"] = str(path.parent / "planted.py")
    path.write_text(json.dumps(info))
    with pytest.raises(ModelError, match="so it is not run"):
        Predicter.from_pretrained("run", "cpu")
    assert not canary.exists()


def test_a_class_is_recorded_with_its_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    class Net:
        pass

    assert script_of(Net) == {}  # it is this test's
    Net.__module__ = "__main__"
    assert script_of(Net) == {}  # it is inside of a function
    Net.__qualname__ = "Net"
    assert script_of(Net) == {}  # there is no file: an interpreter
    main.__file__ = str(tmp_path / "gone.py")
    assert script_of(Net) == {}
    (tmp_path / "here.py").write_text("")
    main.__file__ = str(tmp_path / "here.py")
    assert script_of(Net)["path"] == str((tmp_path / "here.py").resolve())
    assert not home_folder().exists()  # only a run that records the script makes a key
    assert seal.holds(str((tmp_path / "here.py").resolve()), sealed(script_of(Net))["seal"])
    main.__spec__ = type("Spec", (), {"name": "package.module"})()  # type: ignore[assignment]
    assert sealed(script_of(Net)) == script_of(Net) == {"module": "package.module"}


def test_a_seal_needs_a_place_for_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = seal.make("x")
    assert seal.holds("x", first)
    assert not seal.holds("y", first)
    assert (home_folder() / "seal.key").stat().st_mode & 0o077 == 0
    (tmp_path / "file").touch()
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path / "file" / "home"))
    assert seal.make("x") == ""
    assert not seal.holds("x", "")
