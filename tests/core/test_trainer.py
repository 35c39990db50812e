"""How a trainer is called, registered and built, and what it refuses."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import darkit
from darkit.core import Trainer, TrainerConfig
from darkit.dashboard.server.serve import stop
from darkit.errors import ConfigError, DeviceWarning, ModelError, NameInvalidError, RunExistsError, StorageError
from darkit.runs import base
from tests.core.parts import Loop, LoopConfig, Net, byte_tokenizer, net, samples


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (("config",), ()),
        (("tokenizer", "config"), ()),
        (("config",), ("tokenizer",)),
        (("tokenizer",), ("config",)),
        ((), ("config",)),
        ((), ("tokenizer", "config")),
        ((), ("model", "config", "tokenizer")),
    ],
)
def test_model_tokenizer_and_config_come_by_position_or_by_keyword(
    order: tuple[str, ...], named: tuple[str, ...]
) -> None:
    values: dict[str, Any] = {"model": net(), "tokenizer": byte_tokenizer(), "config": LoopConfig()}
    first = [] if "model" in named else [values["model"]]
    trainer = Trainer(*first, *(values[name] for name in order), **{name: values[name] for name in named})
    assert trainer.model is values["model"]
    assert trainer.config is values["config"]
    assert trainer.tokenizer is (values["tokenizer"] if "tokenizer" in order + named else None)


def test_too_many_arguments_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="not 4 arguments"):
        Trainer(net(), None, LoopConfig(), LoopConfig())


def test_a_registered_trainer_is_built_for_models_of_that_class() -> None:
    Trainer.register(Net.__name__, Loop)
    built = Trainer(net(), LoopConfig())
    assert type(built) is Loop
    assert type(Trainer(model=net(), config=LoopConfig())) is Loop
    assert type(Trainer(nn.Linear(4, 1), LoopConfig())) is Trainer


def test_a_subclass_that_is_called_itself_is_not_replaced_by_the_registered_one() -> None:
    class Other(Loop):
        pass

    Trainer.register(Net.__name__, Other)
    assert type(Loop(net(), LoopConfig())) is Loop


@pytest.mark.parametrize("wrong", [int, Loop.train, "Loop"])
def test_only_trainers_can_be_registered(wrong: Any) -> None:
    with pytest.raises(ModelError, match="Only subclasses of Trainer can be registered for 'Net'"):
        Trainer.register("Net", wrong)


def test_an_overridden_init_may_have_more_parameters_and_pass_the_rest_on() -> None:
    class Own(Loop):
        def __init__(self, model: nn.Module, config: TrainerConfig, *, extra: int, **kwargs: Any) -> None:
            super().__init__(model, config, **kwargs)
            self.config = config
            self.extra = extra
            self.current_step = 0

    Trainer.register("Net", Own)
    trainer = Trainer(net(), LoopConfig(name="own"), extra=3, tokenizer=None)
    assert isinstance(trainer, Own)
    assert trainer.extra == 3
    trainer.train(samples(8))
    assert darkit.load("own").status == "finished"


@pytest.mark.parametrize("wrong", [None, {"max_step": 3}, TrainerConfig])
def test_a_config_of_another_kind_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="config must be a TrainerConfig, not"):
        Trainer(net(), wrong)


@pytest.mark.parametrize("wrong", [None, Net, lambda x: x])
def test_what_is_not_a_module_is_refused(wrong: Any) -> None:
    with pytest.raises(ModelError, match=r"model must be a torch\.nn\.Module, not"):
        Trainer(wrong, LoopConfig())


def test_a_value_that_was_set_out_of_range_later_is_refused() -> None:
    config = LoopConfig()
    config.max_step = 0
    with pytest.raises(ConfigError, match="max_step must be at least 1, not 0"):
        Trainer(net(), config)


@pytest.mark.parametrize("name", ["../up", "/tmp/x", "", "a\0b", "n" * 101, ".hidden"])
def test_a_name_that_is_none_is_refused_before_anything_is_written(name: str, home: Path) -> None:
    with pytest.raises(NameInvalidError):
        Loop(net(), LoopConfig(name=name))
    assert not home.exists()


def test_a_link_in_the_place_of_a_name_is_refused(tmp_path: Path) -> None:
    base().mkdir(parents=True)
    (base() / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(NameInvalidError, match="symbolic link"):
        Loop(net(), LoopConfig(name="link"))


def test_an_existing_name_is_refused_and_its_run_is_left_alone() -> None:
    Loop(net(), LoopConfig(name="taken")).train(samples(8))
    before = {path: path.stat().st_mtime_ns for path in (base() / "taken").rglob("*")}
    with pytest.raises(RunExistsError, match="'taken'"):
        Loop(net(), LoopConfig(name="taken"))
    assert {path: path.stat().st_mtime_ns for path in (base() / "taken").rglob("*")} == before


def test_a_home_that_cannot_be_written_is_one_clear_error(home: Path) -> None:
    home.write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="Cannot create"):
        Loop(net(), LoopConfig(name="nowhere")).train(samples(8))
    assert home.read_text() == "a file where a folder should be"


def test_without_a_name_one_is_generated_from_the_model_and_exported() -> None:
    trainer = Loop(net(), LoopConfig())
    trainer.train(samples(8))
    (run,) = darkit.runs()
    assert run.name.startswith("net-")
    assert run.trainer_config["name"] == run.name
    assert trainer.save_directory == run.path


def test_the_save_directory_is_known_before_the_training() -> None:
    assert Loop(net(), LoopConfig(name="known")).save_directory == base() / "known"
    assert not base().exists()
    unnamed = Loop(net(), LoopConfig())
    folder = unnamed.save_directory
    assert folder.is_dir()
    unnamed.train(samples(8))
    assert darkit.load(folder.name).status == "finished"


def test_the_save_directory_may_be_asked_before_the_engine_trains() -> None:
    trainer = Trainer(net(), LoopConfig(), loss=nn.functional.mse_loss)
    folder = trainer.save_directory
    trainer.train(samples(16))
    run = darkit.load(folder.name)
    assert (run.status, run.details.step) == ("finished", 6)


@pytest.mark.parametrize("kind", ["attribute", "property"])
def test_the_root_can_be_overridden(kind: str, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "elsewhere"
    root = folder if kind == "attribute" else property(lambda self: folder)
    cls = type("Elsewhere", (Loop,), {"root": root})
    cls(net(), LoopConfig(name="there")).train(samples(8))
    assert darkit.load("there", root=folder).status == "finished"
    assert not home.exists()
    with pytest.raises(RunExistsError):
        cls(net(), LoopConfig(name="there"))


def test_max_step_is_the_configs() -> None:
    assert Loop(net(), LoopConfig(max_step=17)).max_step == 17


def test_a_device_that_is_not_there_becomes_the_cpu_in_the_config_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = LoopConfig(name="fallback", device="cuda")
    with pytest.warns(DeviceWarning, match="'cuda' is not available"):
        trainer = Loop(net(), config)
    assert config.device == "cpu"
    trainer.train(samples(8))
    assert darkit.load("fallback").trainer_config["device"] == "cpu"


def test_plain_class_attributes_of_a_config_count_and_are_exported() -> None:
    @dataclass
    class Plain(TrainerConfig):
        device = "cpu"
        lr = 1e-2
        extra = "mine"
        max_step: int = 2

    config = Plain(name="plain", lr=3e-3)
    Loop(net(), config).train(samples(8))
    exported = darkit.load("plain").trainer_config
    assert exported == exported | {"device": "cpu", "lr": 3e-3, "extra": "mine", "max_step": 2, "name": "plain"}


def test_model_config_tokenizer_and_source_are_exported() -> None:
    tokenizer = byte_tokenizer()
    Loop(net(), tokenizer, LoopConfig(name="exported")).train(samples(8))
    run = darkit.load("exported")
    assert run.config == {"inputs": 4, "hidden": 8}
    assert (run.path / "tokenizer.json").read_text() == tokenizer.to_str(pretty=True) + "\n"
    assert (run.path / "model.py").read_text().startswith("class Net(nn.Module):")
    assert run.info["model"] == {
        "class": "tests.core.parts.Net",
        "config_kind": "dataclass",
        "config_class": "tests.core.parts.NetConfig",
    }


def test_the_series_come_from_the_class_or_the_argument_or_are_the_usual_ones() -> None:
    class Seen(Loop):
        _visual_series = {"error": ["step", "train_loss"]}  # noqa: RUF012

    Seen(net(), LoopConfig(name="of-class")).train(samples(8))
    Seen(net(), LoopConfig(name="given"), visual_series={"x": ["step", "y"]}).train(samples(8))
    Loop(net(), LoopConfig(name="usual")).train(samples(8))
    assert darkit.load("of-class").series == {"error": ["step", "train_loss"]}
    assert darkit.load("given").series == {"x": ["step", "y"]}
    assert darkit.load("usual").series == {"train_loss": ["step", "train_loss"], "val_loss": ["step", "val_loss"]}


@pytest.mark.parametrize(
    "wrong", [{"x": ["step"]}, {"x": "step"}, {"x": ["step", "y", "z"]}, {"x": ["step", 3]}, ["x"]]
)
def test_a_series_that_is_no_pair_of_columns_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="visual_series"):
        Loop(net(), LoopConfig(), visual_series=wrong)


@pytest.mark.parametrize("wrong", [{"step": 0}, int, "step"])
def test_log_fieldnames_must_be_a_dataclass(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="log_fieldnames must be a dataclass"):
        Loop(net(), LoopConfig(), log_fieldnames=wrong)


def test_a_server_that_is_asked_for_shows_the_run_beside_its_training(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Loop(net(), LoopConfig(name="served"), enable_server=True)
    address = capsys.readouterr().out.split()[-1]
    trainer.train(samples(8))
    assert darkit.load("served").status == "finished"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=60) as page:
        assert page.status == 200
    assert stop(home) == address


@pytest.mark.parametrize("cls", [Loop, Trainer])
def test_several_trainers_may_share_a_config_without_a_name(cls: type[Trainer]) -> None:
    config = LoopConfig()
    for _ in range(2):
        cls(net(), config, loss=nn.functional.mse_loss).train(samples(8))
    assert config == LoopConfig()
    assert len(darkit.runs()) == 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DARWIN_KIT_HOME": "new", "DSPIKE_HOME": "old"}, "new"),
        ({"DSPIKE_HOME": "old"}, "old"),
    ],
)
def test_the_home_is_where_the_variables_say(
    variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DARWIN_KIT_HOME")
    for name, folder in variables.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    trainer = Loop(net(), LoopConfig(name="here"))
    trainer.train(samples(8))
    assert trainer.root == tmp_path / expected / "base"
    assert (tmp_path / expected / "base" / "here" / "run.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {expected}
