"""Of what a run directory names, only configs and modules are built: nothing else is called, whatever it says."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from darkit.engine.description.building import build_config, is_config_class
from darkit.errors import ModelError
from darkit.prediction.rebuild import build_model, find_model_class
from darkit.runs import Run, files
from tests.core.models import CheckedConfig, Configured, FrozenConfig, OwnConfig, Plain


def run_with(folder: Path, config: Any, **model: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"class": "tests.core.models.Configured", "config_kind": "dict", "config_class": ""}
    files.write_json(folder / files.RUN, {"model": facts | model})
    files.write_json(folder / files.MODEL_CONFIG, config)
    return Run(folder)


KINDS = ("dataclass", "transformers", "pydantic", "object")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "config"),
    [
        ("subprocess.Popen", {"args": ["touch", "CANARY"]}),
        ("os.system", {"command": "touch CANARY"}),
        ("pathlib.Path.touch", {"self": "CANARY"}),
        ("tempfile.TemporaryDirectory", {"dir": "CANARY"}),
        ("tempfile._TemporaryFileCloser", {"name": "VICTIM", "delete": True, "close_called": False}),
        ("builtins.eval", {"source": "open('CANARY', 'w')"}),
        ("pickle.Unpickler", {"file": "CANARY"}),
        ("tests.core.test_rebuild_untrusted.Leaving", {"path": "VICTIM"}),
        ("tests.core.test_rebuild_untrusted.Making", {"path": "VICTIM"}),
        ("torch.nn.Linear", {"in_features": 3, "out_features": 1}),
    ],
)
def test_no_other_class_is_built_as_a_config(
    tmp_path: Path, kind: str, path: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, victim = tmp_path / "canary", tmp_path / "victim"
    victim.touch()
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_, **__: canary.touch())
    text = json.dumps(config).replace("CANARY", str(canary)).replace("VICTIM", str(victim))
    run = run_with(tmp_path / "run", json.loads(text), config_kind=kind, config_class=path)
    with pytest.raises(ModelError, match=r"is not allowed as a config|cannot be found"):
        build_model(run)
    assert not canary.exists()
    assert victim.exists()


class Leaving:
    """Removes a file when it goes."""

    path = ""

    def __del__(self) -> None:
        Path(self.path).unlink(missing_ok=True)


class Making:
    """Removes a file when it is made."""

    def __new__(cls) -> Any:
        raise AssertionError("it is not called")


@pytest.mark.parametrize(
    ("kind", "cls", "is_one"),
    [
        ("dataclass", FrozenConfig, True),
        ("dataclass", OwnConfig, False),
        ("pydantic", CheckedConfig, True),
        ("pydantic", FrozenConfig, False),
        ("transformers", FrozenConfig, False),
        ("object", OwnConfig, True),
        ("object", argparse.Namespace, True),
        ("object", argparse.ArgumentParser, False),
        ("object", tempfile.SpooledTemporaryFile, False),
        ("object", Plain, False),
        ("object", print, False),
        ("object", FrozenConfig(), False),
        ("object", dict, False),
    ],
)
def test_which_classes_are_built(kind: str, cls: Any, is_one: bool) -> None:
    assert is_config_class(kind, cls, Configured) is is_one


@pytest.mark.parametrize(
    "path",
    [
        "antigravity.Model",
        "this.Model",
        "idlelib.idle.Model",
        "no_such_package_at_all.Model",
        "a b.Model",
        "../planted.Model",
        "planted/own.Model",
        "os.path;import os.Model",
        "tests.core.models.__class__.__subclasses__()",
        ".Model",
        "Model",
        "",
        "x" * 10_000,
    ],
)
def test_what_is_no_importable_package_is_refused_before_anything_runs(path: str) -> None:
    with pytest.raises(ModelError, match="cannot be found"):
        find_model_class(path, "run")
    assert path.partition(".")[0] not in sys.modules or path.startswith(("tests.", ".", "os"))


def test_nothing_is_imported_from_among_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    code = (
        f"import pathlib\nfrom torch import nn\npathlib.Path({str(canary)!r}).touch()\nclass Model(nn.Linear): pass\n"
    )
    run = run_with(tmp_path / "base" / "run", {}, **{"class": "planted_among_runs.Model"})
    (run.path / "planted_among_runs.py").write_text(code)
    (tmp_path / "base" / "beside").mkdir()
    (tmp_path / "base" / "beside" / "planted_among_runs.py").write_text(code)
    for place in (run.path, tmp_path / "base" / "beside"):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(place))
            patch.chdir(place)
            with pytest.raises(ModelError, match="is among the runs"):
                build_model(run)
    assert not canary.exists()


@pytest.mark.parametrize(
    "node",
    [
        {"layer": "Sequential", "parts": {"0": {"layer": "os.system", "arguments": {"command": "x"}}}},
        {"layer": "__class__"},
        {"layer": "functional"},
        {"layer": "Parameter"},
        {"layer": "init"},
        {"layer": 3},
        {"layer": "Sequential", "parts": {"0": None}},
        {"layer": "Sequential", "parts": [1]},
        {"layer": "Linear", "arguments": {"in_features": "x"}},
        {"layer": "Linear", "arguments": [1], "types": 3},
        {"layer": "ReLU", "types": {"/x": "builtins.eval"}},
        {"layer": "ReLU", "types": {"": "tuple"}},
    ],
)
def test_parts_that_are_no_layers_of_torch_are_refused(tmp_path: Path, node: Any) -> None:
    with pytest.raises(ModelError, match=r"cannot be built from its config\.json"):
        build_model(run_with(tmp_path / "run", node, config_kind="parts"))


def test_parts_within_parts_without_end_are_refused(tmp_path: Path) -> None:
    node: Any = {"layer": "ReLU"}
    for _ in range(90):
        node = {"layer": "Sequential", "parts": {"0": node}}
    with pytest.raises(ModelError, match="cannot be built"):
        build_model(run_with(tmp_path / "run", node, config_kind="parts"))


@pytest.mark.parametrize(
    "model",
    [
        {"class": ["x"]},
        {"class": "os.system", "config_kind": "arguments"},
        {"class": "subprocess.Popen", "config_kind": "arguments"},
        {"config_kind": ["x"]},
        {"config_kind": "made up"},
        {"types": {"/width": "made up"}},
        {"types": {"/width/0/x": "tuple"}},
        {"types": [1]},
        {"script": {"path": "/etc/passwd"}, "class": "__main__.Gone"},
        {"script": {"module": "antigravity"}, "class": "__main__.Gone"},
        {"script": 3, "class": "__main__.Gone"},
        {"config_kind": "omegaconf", "values": 3},
    ],
)
def test_whatever_else_is_wrong_is_one_sentence(tmp_path: Path, model: dict[str, Any]) -> None:
    run = run_with(tmp_path / "run", {"width": "${oc.env:HOME}" if "values" in model else 3}, **model)
    if model.get("types") == [1]:
        assert isinstance(build_model(run), Configured)
        return
    with pytest.raises(ModelError) as caught:
        build_model(run)
    assert "\n" not in str(caught.value)


def test_the_constructor_of_a_plain_class_is_not_called() -> None:
    class Loud(OwnConfig):
        def __init__(self) -> None:
            raise AssertionError("it is not called")

    Loud.__module__ = OwnConfig.__module__
    config = build_config("object", Loud, {"width": 3}, Configured)
    assert (type(config), config.width) == (Loud, 3)


def test_old_runs_are_built_as_ever(tmp_path: Path) -> None:
    plain = run_with(tmp_path / "a", {"width": 3, "hidden": 5}, **{"class": "tests.core.models.Plain"})
    info = plain.info
    info["model"]["config_kind"] = "arguments"
    files.write_json(plain.path / files.RUN, info)
    model = build_model(plain)
    assert isinstance(model, Plain)
    assert model(torch.ones(1, 3)).shape == (1, 1)
    own = {"config_kind": "transformers", "config_class": "tests.core.models.ToDictConfig"}
    assert isinstance(build_model(run_with(tmp_path / "b", {"width": 3}, **own)), nn.Module)
