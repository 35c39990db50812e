"""A script for W&B gives the same history, config and summary with darkit's calls as with W&B itself, offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import darkit
from darkit.errors import ConfigError, LogError, RunExistsError, RunNotFoundError, UnsupportedError
from darkit.integrations import wandb
from darkit.integrations.importers.wandb_records import _contents
from darkit.runs.media import read_media
from darkit.runs.notes import read_notes
from tests.children import CHECKOUT

SCRIPT = """
import sys
if sys.argv[1] == "real":
    import wandb
else:
    import darkit.integrations.wandb as wandb
import argparse, math, datetime
import numpy as np
import torch

wandb.login()
arguments = argparse.Namespace(lr=0.1, layers=[1, 2], nested={"a": 1}, text="x")
run = wandb.init(project="a project", name="a/name", config=arguments, tags=["one", "two"], notes="a note")
wandb.config.update({"batch": 32})
wandb.config.seed = 7
wandb.define_metric("val/*", step_metric="epoch")
wandb.define_metric("best", summary="max,min,mean")
wandb.define_metric("last", summary="last")
for step in range(3):
    wandb.log({"loss": torch.tensor(1.0 / (step + 1), requires_grad=True), "flag": step > 1, "n": np.int64(step)})
wandb.log({"part": 1}, commit=False)
wandb.log({"part": 2, "other": np.float32(0.5)})
wandb.log({"epoch": 1, "val/acc": 0.25})
wandb.log({"val/acc": 0.5})
wandb.log({"best": 3.0, "last": 1, "nested": {"a": {"b": 2}, "c": "text"}}, step=20)
wandb.log({"late": 1}, step=19)
wandb.log({"best": 1.0}, step=20)
wandb.log({"best": 2.0, "last": 2})
wandb.log({"none": None, "inf": math.inf, "nan": math.nan, "one": np.array([[4.5]])}, step=30, commit=True)
wandb.log({"list": [1, 2.5], "array": np.arange(3), "tensor": torch.arange(2)})
wandb.log({})
wandb.log({"text": "a\\"b", "big": 2**40, "day": datetime.date(2026, 1, 2)}, step=40)
wandb.log({"text": "later"}, step=40, commit=False)
assert wandb.run.step == run.step == 40
wandb.summary["set"] = 5
wandb.run.summary.update({"more": "text"})
assert wandb.config.lr == wandb.config["lr"] == 0.1
wandb.finish()
assert wandb.run is None
"""


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No run stays open after a test."""
    yield
    while wandb.run is not None:
        wandb.finish()


def script(which: str, folder: Path, home: Path) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / "script.py"
    path.write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": str(CHECKOUT),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_CONFIG_DIR": str(folder / "config"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_DISABLE_CODE": "true",
        "DARWIN_KIT_HOME": str(home),
    }
    words = [sys.executable, str(path), which]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def real(folder: Path) -> tuple[dict[int, dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """History, config and summary of W&B's own file, whose records W&B's own classes read."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    rows: dict[int, dict[str, Any]] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for data, _ in _contents(path):
        record = Record()
        record.ParseFromString(data)
        for item in record.run.config.update if record.HasField("run") else record.config.update:
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                row[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            rows[row["_step"]] = flat(row)
    return rows, {key: value for key, value in config.items() if key != "_wandb"}, summary


def as_logged(value: Any) -> Any:
    """A value of W&B's file as darkit's log has it."""
    return json.dumps(value) if isinstance(value, list) else comparable(value)


def comparable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not numpy.isfinite(value) else value


def test_the_history_config_and_summary_are_those_of_wandb(home: Path, tmp_path: Path) -> None:
    script("real", tmp_path / "real", home)
    script("ours", tmp_path / "ours", home)
    rows, config, summary = real(tmp_path / "real")
    (run,) = darkit.runs()
    expected = {
        step: {key: as_logged(value) for key, value in row.items() if not key.startswith("_") and value is not None}
        for step, row in rows.items()
    }
    found: dict[int, dict[str, Any]] = {}
    for row in run.log().to_dicts():
        kept = {
            key: comparable(value) for key, value in row.items() if key not in ("step", "time") and value is not None
        }
        found[row["step"]] = kept
    assert {step: row for step, row in found.items() if row} == {step: row for step, row in expected.items() if row}
    assert run.config == config
    assert run.name == "a-name"
    assert set(read_notes(run.path).tags) == {"one", "two", "a project"}
    assert read_notes(run.path).note == "a note"
    assert run.series["val/acc"] == ["epoch", "val/acc"]
    assert run.status == "finished"
    ours = run.info["summary"]
    assert ours["loss"] == pytest.approx(1 / 3)
    assert ours["best"] == {"max": 3.0, "min": 1.0, "mean": 2.0}
    assert ours["last"] == {"last": 2}
    assert (ours["set"], ours["more"], ours["text"]) == (5, "text", "later")
    for key in ("loss", "part", "set", "more", "epoch", "text", "big"):
        assert ours[key] == summary[key]


def test_media_lists_and_frames_are_kept(home: Path) -> None:
    table = wandb.Table(columns=["word"])
    table.add_data("sea")
    table.add_column("count", [3])
    with wandb.init(name="mine") as run:
        run.log(
            {
                "image": wandb.Image(numpy.zeros((4, 5, 3), numpy.uint8), caption="black"),
                "several": [wandb.Image(torch.zeros(3, 4, 5)), wandb.Image(torch.ones(3, 4, 5))],
                "sound": wandb.Audio(numpy.zeros(80), sample_rate=8000),
                "counted": wandb.Histogram(np_histogram=(numpy.array([1, 2]), numpy.array([0.0, 1.0, 2.0]))),
                "long": numpy.arange(100.0).reshape(10, 10),
                "table": table,
            }
        )
    found = {one.key: one.kind for one in read_media(darkit.load("mine").path)}
    assert found == {
        "image": "image",
        "several/0": "image",
        "several/1": "image",
        "sound": "audio",
        "counted": "histogram",
        "long": "histogram",
        "table": "table",
    }
    assert table.get_column("count") == [3]


def test_names_may_repeat_and_darkits_own_columns_are_kept(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        wandb.init(name="a: b", project="p")
        wandb.log({"step": 5, "time": 2.0, "loss": 1.0})
        assert wandb.run.name == "a: b"
        wandb.finish()
    assert {run.name for run in darkit.runs()} == {"a- b", "a- b-2"}
    log = darkit.load("a- b").log()
    assert log["logged_step"].to_list() == [5]
    assert log["step"].to_list() == [0]
    assert sum("'step' is logged as 'logged_step'" in one.message for one in caplog.records) == 1


def test_a_run_with_an_id_continues_after_its_last_row(home: Path) -> None:
    wandb.init(id="abc", name="mine", config={"lr": 1})
    for step in range(3):
        wandb.log({"loss": step})
    wandb.summary["best"] = 0
    wandb.finish()
    with pytest.raises(RunExistsError, match="has the id 'abc' already"):
        wandb.init(id="abc")
    with pytest.raises(RunNotFoundError, match="No run has the id 'other'"):
        wandb.init(id="other", resume="must")
    run = wandb.init(id="abc", resume="allow", config={"batch": 2})
    assert run.resumed
    assert run.step == 3
    assert run.summary["best"] == 0
    assert dict(run.config) == {"lr": 1, "batch": 2}
    wandb.log({"loss": 3})
    wandb.finish()
    found = darkit.load("mine")
    assert found.log()["step"].to_list() == [0, 1, 2, 3]
    assert found.log()["loss"].to_list() == [0, 1, 2, 3]
    assert found.config == {"lr": 1, "batch": 2}
    assert found.checkpoints() == []
    assert [one.name for one in darkit.runs()] == ["mine"]


def test_the_config_changes_only_when_that_is_allowed(home: Path, tmp_path: Path) -> None:
    wandb.init(name="mine", config=Namespace(lr=0.1))
    with pytest.raises(ConfigError, match=r"'lr' is 0\.1 and cannot become 0\.2"):
        wandb.config.lr = 0.2
    wandb.config.update({"lr": 0.2}, allow_val_change=True)
    wandb.config.setdefaults({"lr": 9, "depth": 3})
    assert wandb.config.get("missing", 4) == 4
    assert not hasattr(wandb.config, "missing")
    assert darkit.load("mine").config == {"lr": 0.2, "depth": 3}
    wandb.finish()
    file = tmp_path / "config.yaml"
    file.write_text("wandb_version: 1\nlr:\n  desc: null\n  value: 0.5\nplain: 2\n")
    run = wandb.init(config=str(file), config_exclude_keys=["plain"])
    assert dict(run.config) == {"lr": 0.5}


def test_a_disabled_run_takes_everything_and_records_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with wandb.init(project="p", config={"lr": 1}) as run:
        run.log({"loss": 1.0})
        run.log({"image": wandb.Image(torch.zeros(3, 4, 5))}, step=7)
        assert run.step == 7
        assert run.summary["loss"] == 1.0
        assert run.disabled
        run.tags = ("a",)
        assert run.tags == ()
    assert darkit.runs() == []


def test_reinit_returns_ends_or_leaves_the_open_run(home: Path) -> None:
    first = wandb.init(name="first")
    assert wandb.init(name="again") is first
    second = wandb.init(name="second", reinit="create_new")
    assert wandb.run is second
    second.finish()
    assert wandb.run is first
    third = wandb.init(name="third", reinit=True)
    assert (darkit.load("first").status, wandb.run) == ("finished", third)


def test_an_exit_code_is_a_crash(home: Path) -> None:
    wandb.init(name="mine")
    wandb.log({"loss": 1.0})
    wandb.finish(exit_code=3)
    details = darkit.load("mine").details
    assert (details.state, details.reason) == ("crashed", "RuntimeError: finish(exit_code=3)")


@pytest.mark.soak
def test_a_script_that_fails_without_finish_is_crashed_and_keeps_its_summary(home: Path, tmp_path: Path) -> None:
    code = """
    import darkit.integrations.wandb as wandb
    wandb.init(name="mine")
    wandb.log({"loss": 0.5})
    raise ValueError("of the user")
    """
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    run = darkit.load("mine")
    assert (run.details.state, run.details.reason) == ("crashed", "ValueError: of the user")
    assert run.info["summary"] == {"loss": 0.5}
    assert run.log()["loss"].to_list() == [0.5]


@pytest.mark.parametrize(
    "name", ["Artifact", "Api", "watch", "save", "alert", "sweep", "agent", "plot", "Html", "Video", "use_artifact"]
)
def test_what_darkit_cannot_do_says_so(home: Path, name: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"^darkit\.integrations\.wandb does not support wandb\.{name}\.$"):
        getattr(wandb, name)
    run = wandb.init(name="mine")
    with pytest.raises(UnsupportedError, match="does not support 'log_artifact' of a run"):
        run.log_artifact("x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sync_tensorboard": True}, "does not support sync_tensorboard="),
        ({"fork_from": "abc?_step=3"}, "does not support fork_from="),
        ({"mode": "onlin"}, "Unknown mode 'onlin'"),
        ({"resume": "maybe", "id": "a"}, "Unknown resume='maybe'"),
        ({"resume": "allow"}, "resume= needs id="),
        ({"reinit": "twice"}, "Unknown reinit='twice'"),
        ({"config": 3}, "config must be a dict"),
        ({"config": "missing.yaml"}, "cannot be read"),
        ({"tags": ["x" * 1000]}, "A tag has at most"),
    ],
)
def test_a_wrong_start_leaves_nothing(home: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wandb.init(**arguments)
    assert wandb.run is None
    assert darkit.runs() == []


def test_wrong_calls_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"Call wandb\.init\(\) before wandb\.log"):
        wandb.log({"loss": 1})
    with pytest.raises(ConfigError, match=r"Call wandb\.init\(\) before wandb\.config"):
        wandb.config  # noqa: B018 - the attribute raises
    with pytest.raises(ConfigError, match="takes arguments by name only"):
        wandb.init("a project")
    run = wandb.init(name="mine", entity="me", dir="/nowhere", settings=wandb.Settings(start_method="fork"))
    with pytest.raises(ConfigError, match=r"does not support base_url= of wandb\.Settings"):
        wandb.Settings(base_url="x")
    with pytest.raises(ConfigError, match=r"does not support boxes= of wandb\.Image"):
        wandb.Image(torch.zeros(3, 4, 5), boxes={})
    with pytest.raises(ConfigError, match="Unknown summary 'median'"):
        wandb.define_metric("loss", summary="median")
    with pytest.raises(ConfigError, match="does not support hidden="):
        wandb.define_metric("loss", hidden=True)
    with pytest.raises(LogError, match="Names of logged values must be text, not 3"):
        run.log({3: 4})
    with pytest.raises(LogError, match="takes a dict"):
        run.log([1])
    run.finish()
    with pytest.raises(ConfigError, match="has ended"):
        run.log({"loss": 1})
