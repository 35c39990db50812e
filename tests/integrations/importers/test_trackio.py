"""trackio's databases: what its own storage reads from them is what the runs hold, read without it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import base, files, load
from darkit.runs.media import read_media, read_medium
from tests.integrations.importers.parts import by_name, command, imported, only_run, points, tree

SCRIPT = """
import json, math
import numpy as np
import pandas
import trackio
from trackio.sqlite_storage import SQLiteStorage

trackio.init(project="proj", name="the run", config={"lr": 0.1, "deep": {"a": 1}}, auto_log_gpu=False)
for step in range(20):
    trackio.log({"loss": 1 / (step + 1), "nan": math.nan, "inf": -math.inf, "nested": {"x": step}, "word": "text"})
trackio.log({"late": 1}, step=40)
trackio.log({
    "picture": trackio.Image(np.zeros((4, 4, 3), "uint8"), caption="a caption"),
    "table": trackio.Table(dataframe=pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})),
    "histogram": trackio.Histogram([1.0, 2.0, 3.0], num_bins=4),
}, step=41)
trackio.log_system({"gpu": 50.0})
trackio.finish()
trackio.init(project="proj", name="second", auto_log_gpu=False)
trackio.log({"loss": 3.0})
trackio.finish()
logs = SQLiteStorage.get_logs("proj", "the run")
print("\\n" + json.dumps([one | {"timestamp": str(one["timestamp"])} for one in logs]))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("trackio")
    (folder / "script.py").write_text(SCRIPT)
    environment = os.environ | {"TRACKIO_DIR": str(folder / "store"), "HOME": str(folder)}
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "store", json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def store(written: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written[0], tmp_path / "trackio"))


def test_the_values_are_those_of_trackios_storage(store: Path, written: tuple[Path, list[dict[str, Any]]]) -> None:
    outcomes = imported(store)
    assert {outcome.name for outcome in outcomes} == {"the run", "second"}
    rows = []
    for one in written[1]:
        for name, value in one.items():
            if name == "nested":
                rows.append(("nested.x", one["step"], value["x"]))
            elif name not in ("step", "timestamp") and not isinstance(value, dict):
                rows.append((name, one["step"], value))
    run = load("the run")
    assert points(run) == by_name(rows)
    assert points(run)["inf"][0] == (0, -math.inf)
    assert points(run)["late"] == [(40, 1)]
    moments = {one["step"]: datetime.fromisoformat(one["timestamp"]).timestamp() for one in written[1]}
    assert all(moments[row["step"]] == row["time"] for row in run.log().iter_rows(named=True))
    assert run.config == {"lr": 0.1, "deep": {"a": 1}}
    assert (run.status, run.details.step) == ("unknown", 41)
    assert run.info["origin"]["project"] == "proj"
    assert "system.gpu" in (run.path / files.SYSTEM_LOG).read_text()


def test_media_are_kept(store: Path) -> None:
    imported(store)
    run = load("the run")
    media = {medium.key: medium for medium in read_media(run.path)}
    assert {key: (one.kind, one.step) for key, one in media.items()} == {
        "picture": ("image", 41),
        "table": ("table", 41),
        "histogram": ("histogram", 41),
    }
    (file,) = (store / "media").rglob("*.png")
    assert read_medium(run.path, media["picture"]) == file.read_bytes()
    assert media["picture"].caption == "a caption"
    assert json.loads(read_medium(run.path, media["table"])) == {"columns": ["a", "b"], "rows": [[1, "x"], [2, "y"]]}
    assert sum(json.loads(read_medium(run.path, media["histogram"]))["counts"]) == 3


def test_the_source_is_not_touched_and_a_second_import_writes_nothing(store: Path) -> None:
    before = tree(store)
    imported(store)
    runs = tree(base())
    assert {outcome.action for outcome in imported(store)} == {"unchanged"}
    assert tree(base()) == runs
    assert tree(store) == before


def test_only_new_rows_are_added(store: Path) -> None:
    imported(store)
    before = (load("second").path / files.LOG).read_bytes()
    with sqlite3.connect(store / "proj.db") as connection:
        columns = "run_id, timestamp, run_name, step, metrics"
        connection.execute(
            f"INSERT INTO metrics ({columns}) SELECT run_id, timestamp, run_name, 7, ? FROM metrics "
            "WHERE run_name = 'second'",
            [b'{"loss": 0.5}'],
        )
    connection.close()
    outcomes = {outcome.name: (outcome.action, outcome.new_rows) for outcome in imported(store)}
    assert outcomes == {"the run": ("unchanged", 0), "second": ("updated", 1)}
    assert (load("second").path / files.LOG).read_bytes().startswith(before)


def test_an_old_database_without_ids_and_with_broken_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("CREATE TABLE metrics (timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)")
        rows = [("2025-01-01T00:00:00", "r", 0, '{"loss": 1.0}'), ("never", "r", 1, '{"loss": 0.5'), ("", "r", 2, "[]")]
        rows += [("", "r", 3, '{"loss": 0.25}'), ("", "r", 4, '{"x": {"_type": "trackio.image", "file_path": "../x"}}')]
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", rows)
    connection.close()
    assert command(tmp_path / "old.db") == 0
    assert points(only_run()) == {"loss": [(0, 1.0), (3, 0.25)]}
    said = capsys.readouterr().out
    assert "2 rows of metrics are not whole" in said
    assert "is not one below" in said
