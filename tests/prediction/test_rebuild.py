"""A model built again from what its run tells: its class is found, and its config is what it was."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import darkit
from darkit.engine.description.building import build_config
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.errors import ModelError, ReproductionWarning
from darkit.prediction.rebuild import build_model, find_model_class
from darkit.runs import Run, files
from tests.core import models
from tests.core.models import CONFIGS, Configured, Part, Plain, Positional, Secretive, Shape, WholeConfig


def run_of(model: nn.Module, folder: Path) -> Run:
    """A run as far as building its model needs one."""
    folder.mkdir(parents=True, exist_ok=True)
    description = write_exports(folder, model, None, None)
    files.write_json(folder / files.RUN, {"model": description.as_dict()})
    return Run(folder)


def same_parts(one: nn.Module, other: nn.Module) -> bool:
    shapes = [{key: value.shape for key, value in part.state_dict().items()} for part in (one, other)]
    return type(one) is type(other) and shapes[0] == shapes[1]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_config_of_any_kind_is_rebuilt(config: Any, tmp_path: Path) -> None:
    model = Configured(config)
    rebuilt = build_model(run_of(model, tmp_path / "run"))
    assert same_parts(rebuilt, model)
    assert isinstance(rebuilt, Configured)
    assert type(rebuilt.config) is type(config)
    if not isinstance(config, dict):
        assert vars(rebuilt.config) == vars(config)
    else:
        assert rebuilt.config == config


parts = st.builds(Part, size=st.integers(1, 9), rates=st.lists(st.floats(0, 1), max_size=3).map(tuple))


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        WholeConfig,
        width=st.integers(1, 5),
        part=parts,
        perhaps=st.none() | parts,
        parts=st.lists(parts, max_size=2),
        named=st.dictionaries(st.text(max_size=3), parts, max_size=2),
        pair=st.tuples(st.integers(), st.integers()),
        shape=st.sampled_from(Shape),
        folder=st.sampled_from([Path("a/b"), Path("/c")]),
        dtype=st.sampled_from([torch.float16, torch.int64]),
    )
)
def test_whatever_a_dataclass_holds_comes_back_in_its_types(config: WholeConfig) -> None:
    description = describe_model(Configured(config))
    values = json.loads(json.dumps(description.values))
    assert build_config("dataclass", WholeConfig, values, Configured, description.types) == config
    assert build_config("dataclass", WholeConfig, values, Configured) == config  # as older runs have it


def test_attributes_that_are_no_fields_come_back_if_they_were_changed(tmp_path: Path) -> None:
    config = WholeConfig()
    config.plain = "changed"
    config.added = 7
    rebuilt = build_model(run_of(Configured(config), tmp_path / "run"))
    assert isinstance(rebuilt, Configured)
    assert (rebuilt.config.plain, rebuilt.config.added) == ("changed", 7)
    assert "plain" not in vars(build_model(run_of(Configured(WholeConfig()), tmp_path / "other")).config)


def test_a_config_under_another_name_is_the_first_argument(tmp_path: Path) -> None:
    model = Positional(models.FrozenConfig(4))
    assert same_parts(build_model(run_of(model, tmp_path / "run")), model)


def test_a_model_without_a_config_is_built_of_its_constructors_arguments(tmp_path: Path) -> None:
    model = Plain(3, hidden=5)
    run = run_of(model, tmp_path / "run")
    assert run.config == {"width": 3, "hidden": 5}
    assert same_parts(build_model(run), model)


def test_a_model_of_which_nothing_is_known_asks_for_itself(tmp_path: Path) -> None:
    with pytest.warns(ReproductionWarning, match="Secretive"):
        run = run_of(Secretive(3), tmp_path / "run")
    with pytest.raises(ModelError, match=r"no recorded config of Secretive: pass the model itself as model="):
        build_model(run)


@pytest.mark.parametrize("left", [None, "", '{"width": 3, "hid', "[]"])
def test_without_its_whole_config_a_model_is_not_built_of_defaults(left: str | None, tmp_path: Path) -> None:
    run = run_of(Plain(3, hidden=5), tmp_path / "run")
    path = run.path / files.MODEL_CONFIG
    path.unlink() if left is None else path.write_text(left)
    with pytest.raises(ModelError, match=r"config\.json cannot be read \(.*restore the file, or pass the model itself"):
        build_model(run)


def test_a_config_that_the_class_no_longer_takes_is_one_clear_error(tmp_path: Path) -> None:
    run = run_of(Plain(3), tmp_path / "run")
    files.write_json(run.path / files.MODEL_CONFIG, {"width": 3, "depth": 1})
    with pytest.raises(
        ModelError, match=r"Plain of run 'run' cannot be built from its config\.json \(TypeError: .*depth"
    ):
        build_model(run)


def test_an_imported_class_is_found_by_its_path() -> None:
    assert find_model_class("tests.core.models.Plain", "run") is Plain
    assert find_model_class("torch.nn.modules.linear.Linear", "run") is nn.Linear


def test_a_local_class_is_found_while_it_lives(tmp_path: Path) -> None:
    @dataclass
    class LocalConfig:
        width: int = 4

    class Local(nn.Module):
        def __init__(self, config: LocalConfig) -> None:
            super().__init__()
            self.config = config
            self.layer = nn.Linear(config.width, 1)

    model = Local(LocalConfig(6))
    rebuilt = build_model(run_of(model, tmp_path / "run"))
    assert same_parts(rebuilt, model)
    assert rebuilt.config == LocalConfig(6)


def test_the_class_that_was_defined_last_under_a_path_is_taken() -> None:
    def define() -> type[nn.Module]:
        class Again(nn.Module):
            pass

        return Again

    first, last = define(), define()
    assert find_model_class(f"{last.__module__}.{last.__qualname__}", "run") is last is not first


def test_a_class_that_nobody_imported_is_imported_from_its_recorded_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "freshly_written.py").write_text(
        "from torch import nn\nclass Fresh(nn.Linear):\n    class Inner(nn.Linear):\n        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_model_class("freshly_written.Fresh", "run").__name__ == "Fresh"
    monkeypatch.delitem(sys.modules, "freshly_written")
    assert find_model_class("freshly_written.Fresh.Inner", "run").__name__ == "Inner"


@pytest.mark.parametrize("path", ["__main__.Gone", "no_such_module.Gone", "tests.core.models.Gone", "Gone", ""])
def test_a_class_that_is_nowhere_is_one_clear_error(path: str) -> None:
    with pytest.raises(ModelError, match=r"The class .* of run 'old' cannot be found .*: import the module"):
        find_model_class(path, "old")


@pytest.mark.parametrize("path", ["tests.core.models.NotAModel", "os.getcwd", "os.path"])
def test_what_is_no_module_class_is_refused(path: str) -> None:
    with pytest.raises(ModelError, match=r"the recorded class of run 'old', is not a torch\.nn\.Module"):
        find_model_class(path, "old")


def test_what_a_script_defined_is_found_where_it_was_imported_from_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "training_script.py"
    script.write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass\n"
        "class Config:\n"
        "    width: int = 2\n"
        "class OfAScript(nn.Module):\n"
        "    def __init__(self, config: Config):\n"
        "        super().__init__()\n"
        "        self.config = config\n"
        "        self.layer = nn.Linear(config.width, 1)\n"
    )
    as_main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", as_main)
    exec(compile(script.read_text(), script, "exec"), vars(as_main))
    run = run_of(as_main.OfAScript(as_main.Config(7)), tmp_path / "run")
    assert run.info["model"]["class"] == "__main__.OfAScript"
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    vars(as_main).clear()
    gc.collect()
    monkeypatch.syspath_prepend(str(tmp_path))
    import training_script

    rebuilt = build_model(run)
    assert type(rebuilt) is training_script.OfAScript
    assert rebuilt.config == training_script.Config(7)


def test_a_config_class_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    run = run_of(Configured(models.FrozenConfig(2)), tmp_path / "run")
    info = run.info
    info["model"]["config_class"] = "tests.core.models.GoneConfig"
    files.write_json(run.path / files.RUN, info)
    with pytest.raises(ModelError, match=r"'tests\.core\.models\.GoneConfig' of run 'run' cannot be found"):
        build_model(run)


def test_the_default_device_and_generators_are_left_alone_by_building(tmp_path: Path) -> None:
    run = run_of(Plain(3), tmp_path / "run")
    assert all(parameter.device.type == "cpu" for parameter in build_model(run).parameters())
    assert darkit.runs() == []
