from __future__ import annotations

import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from textwrap import dedent

import pytest

import darkit


def run(script: str) -> str:
    command = [sys.executable, "-c", dedent(script)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def test_import_loads_nothing_slow() -> None:
    script = """
        import sys
        import darkit
        slow = {"torch", "lightning", "numpy", "polars", "hydra", "dash", "rich", "transformers"}
        print(sorted(slow & set(sys.modules)))
    """
    assert run(script) == "[]"


def test_a_reader_needs_no_torch_at_all() -> None:
    script = """
        import sys
        sys.modules["torch"] = sys.modules["lightning"] = None  # importing them fails
        import darkit
        from darkit.runs import base, files
        from darkit.runs.log import CsvLog
        folder = base() / "gpt"
        folder.mkdir(parents=True)
        files.write_json(folder / "run.json", {"id": "x"})
        CsvLog(folder / "train_log.csv").append([{"step": 1, "train_loss": 0.5}])
        (folder / "iter-1-ckpt.pth").touch()
        (run,) = darkit.runs()
        assert run == darkit.load("gpt")
        print(run.status, run.log()["train_loss"].to_list(), run.latest_checkpoint().name, run.info)
    """
    assert run(script) == "crashed [0.5] iter-1-ckpt {'id': 'x'}"


def test_a_prediction_does_not_load_what_only_training_needs() -> None:
    script = """
        import sys
        import torch
        from darkit.core import Predicter
        from torch import nn
        predicter = Predicter("none", nn.Linear(2, 1), "cpu")
        assert predicter.predict(torch.zeros(3, 2)).shape == (3, 1)
        print(sorted({"lightning", "tensorboard", "transformers"} & set(sys.modules)))
    """
    assert run(script) == "[]"


def test_everything_public_is_there() -> None:
    core = import_module("darkit.core")
    assert {name: getattr(core, name).__name__ for name in core.__all__} == {name: name for name in core.__all__}
    with pytest.raises(AttributeError, match=r"^module 'darkit.core' has no attribute 'Predictor'$"):
        core.Predictor  # noqa: B018
    for name in darkit.__all__:
        assert getattr(darkit, name) is not None
    assert set(darkit.__all__) <= set(dir(darkit))
    assert darkit.fit is import_module("darkit.engine.training").fit
    assert darkit.TrainerConfig is import_module("darkit.core").TrainerConfig


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'darkit' has no attribute 'fitt'$"):
        darkit.fitt  # noqa: B018
    with pytest.raises(ImportError):
        exec("from darkit import fitt")


def test_runs_is_a_package_and_a_function() -> None:
    assert darkit.runs() == []
    assert darkit.runs is import_module("darkit.runs")
    assert darkit.runs.log is import_module("darkit.runs.log")
    with pytest.raises(TypeError):
        darkit.runs("gpt")


def test_the_version_is_the_packages() -> None:
    assert darkit.__version__ == metadata.version("darkit")


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(darkit.__file__).with_name("py.typed").is_file()


@pytest.mark.soak
def test_every_module_can_be_the_first_that_is_imported() -> None:
    script = """
import importlib, pkgutil, sys
import lightning, torch
import darkit
names = [module.name for module in pkgutil.walk_packages(darkit.__path__, "darkit.")]
names = [name for name in names if not name.startswith(("darkit.cli.template", "darkit.examples"))]
for name in names:
    if name.endswith(("__main__", "verify_child")):
        continue
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("darkit")]:
        del sys.modules[loaded]
    importlib.import_module(name)
print(len(names))
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(result.stdout) > 60
