"""MLflow's stores: what its client reads from them is what the runs hold, read without it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import base, files, list_runs, load
from darkit.runs.media import read_media, read_medium
from darkit.runs.notes import read_notes
from tests.integrations.importers.parts import command, expected, imported, points, tree

SCRIPT = """
import json, math, os, sys
import mlflow
import numpy as np

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("the experiment")
with mlflow.start_run(run_name="first", tags={"team": "x"}, description="a description"):
    mlflow.log_params({"lr": 0.1, "layers": 3, "flag": True, "optimizer": "sgd", "version": "1.10", "deep/name": "y"})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metric("val/accuracy", step / 20, step=step)
    for value in (3.0, 1.0, 2.0):
        mlflow.log_metric("without a step", value)
    mlflow.log_metric("odd", math.nan, step=1)
    mlflow.log_metric("odd", math.inf, step=4)
    mlflow.log_metric("odd", 5.0, step=-2)
    mlflow.log_metrics({"system/cpu": 50.0, "system/memory": 1e9}, step=3)
    mlflow.log_image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), key="pictures/one", step=3)
    mlflow.log_text("an artifact", "notes/x.txt")
try:
    with mlflow.start_run(run_name="failing"):
        mlflow.log_metric("loss", 1.0)
        raise ValueError
except ValueError:
    pass
with mlflow.start_run(run_name="deleted") as deleted:
    mlflow.log_metric("loss", 1.0)
mlflow.delete_run(deleted.info.run_id)
mlflow.start_run(run_name="open")
mlflow.log_metric("loss", 2.0)

client = mlflow.MlflowClient()
(experiment,) = [one for one in client.search_experiments() if one.name == "the experiment"]
found = {}
for run in client.search_runs([experiment.experiment_id]):
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    metrics = {name: [(one.step, one.value, one.timestamp) for one in history] for name, history in histories.items()}
    found[run.info.run_name] = {
        "id": run.info.run_id,
        "params": run.data.params,
        "metrics": metrics,
        "start": run.info.start_time,
    }
print(json.dumps(found))
sys.stdout.flush()
os._exit(0)  # the open run stays open
"""


def write(folder: Path, address: str) -> dict[str, Any]:
    """Have MLflow write a store; return what its own client then reads."""
    (folder / "script.py").write_text(SCRIPT)
    environment = os.environ | {
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "HOME": str(folder),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    words = [sys.executable, "script.py", address]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module", params=["files", "sqlite"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, write(folder, "mlruns" if request.param == "files" else "sqlite:///mlflow.db")


@pytest.fixture
def store(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written[0], tmp_path / "store"))


@pytest.fixture
def api(written: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return written[1]


def values(history: dict[str, Any]) -> dict[str, list[tuple[int, Any]]]:
    pairs = {name: [(step, value) for step, value, _ in one] for name, one in history.items()}
    return expected({name: one for name, one in pairs.items() if not name.startswith("system/")})


@pytest.mark.few(1)
def test_the_values_are_those_of_mlflows_client(store: Path, api: dict[str, Any]) -> None:
    outcomes = imported(store)
    assert sorted((outcome.name, outcome.state) for outcome in outcomes) == [
        ("failing", "crashed"),
        ("first", "finished"),
        ("open", "unknown"),
    ]
    for name in ("failing", "first", "open"):
        assert points(load(name)) == values(api[name]["metrics"])
        assert load(name).info["origin"]["run_id"] == api[name]["id"]
        assert load(name).created == api[name]["start"] / 1000
    assert [value for _, value in points(load("first"))["without a step"]] == [3.0, 1.0, 2.0]
    assert "RUNNING" in load("open").details.reason
    assert load("first").info["origin"]["experiment"] == "the experiment"


def test_parameters_tags_images_and_system_metrics(store: Path, api: dict[str, Any]) -> None:
    imported(store)
    run = load("first")
    assert run.config == {"lr": 0.1, "layers": 3, "flag": True, "optimizer": "sgd", "version": "1.10", "deep/name": "y"}
    assert {name: str(value) for name, value in run.config.items()} == api["first"]["params"]
    assert read_notes(run.path).tags == ("team=x",)
    assert read_notes(run.path).note == "a description"
    assert (run.path / files.SYSTEM_LOG).read_text().splitlines()[0] == "time,step,system.cpu,system.memory"
    (picture,) = read_media(run.path)
    assert (picture.key, picture.step, picture.kind) == ("pictures/one", 3, "image")
    (file,) = store.glob("mlruns/*/*/artifacts/images/*.png")
    assert read_medium(run.path, picture) == file.read_bytes()
    assert run.info["command"] == ["script.py"]


def test_a_deleted_run_is_said_and_left_out(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(store) == 0
    assert "deleted in MLflow" in capsys.readouterr().out
    assert "deleted" not in {run.name for run in list_runs()}


def test_artifacts_of_a_run_are_not_searched_for_logs(store: Path) -> None:
    for folder in store.glob("mlruns/*/*/artifacts"):
        (folder / "version_0").mkdir()
        (folder / "version_0" / "metrics.csv").write_text("step,loss\n1,2\n")
    imported(store)
    assert {run.name for run in list_runs()} == {"failing", "first", "open"}


def test_the_source_is_not_touched_and_a_second_import_writes_nothing(store: Path) -> None:
    before = tree(store)
    imported(store)
    assert tree(store) == before
    runs = tree(base())
    assert {outcome.action for outcome in imported(store)} == {"unchanged"}
    assert tree(base()) == runs
    assert tree(store) == before


@pytest.fixture(scope="module")
def file_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as old versions wrote it, by hand."""
    folder = tmp_path_factory.mktemp("old") / "mlruns" / "0"
    run = folder / "abc"
    for part in ("metrics/a", "params", "tags"):
        (run / part).mkdir(parents=True)
    (folder / "meta.yaml").write_text(
        "artifact_location: x\nexperiment_id: '0'\nname: Default\nlifecycle_stage: active\n"
    )
    (run / "meta.yaml").write_text("run_uuid: abc\nstatus: 3\nstart_time: 1500000000000\nname: ''\nend_time: null\n")
    (run / "metrics" / "loss").write_text("1500000000000 1.0 0\n1500000001000 0.5 1\n1500000002000 0.2")
    (run / "metrics" / "a" / "b").write_text("1500000000000 7\nnot a line\n")
    (run / "params" / "lr").write_text("0.1")
    return folder.parent


def test_old_and_torn_files_are_read_as_far_as_they_are_whole(file_store: Path) -> None:
    (outcome,) = imported(file_store)
    assert points(load("abc")) == {"loss": [(0, 1.0), (1, 0.5)], "a/b": [(0, 7.0)]}
    assert any("1 lines of metrics/loss" in problem for problem in outcome.problems)
    assert load("abc").status == "finished"


def test_hostile_yaml_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mlruns" / "0"
    folder.mkdir(parents=True)
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    (folder / "meta.yaml").write_text(bomb)
    assert command(tmp_path) == 1
    assert "not valid YAML, or too large" in capsys.readouterr().out
    (folder / "meta.yaml").write_text("experiment_id: !!python/object/apply:os.system ['touch hacked']\nname: x\n")
    assert command(tmp_path) == 2
    assert not Path("hacked").exists()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A store of MLflow's form with one run, in a database that its program has open."""
    path = tmp_path / "db" / "mlflow.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            PRAGMA journal_mode = WAL;
            CREATE TABLE experiments (experiment_id INTEGER, name TEXT);
            CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, start_time INTEGER, end_time INTEGER,
                               experiment_id INTEGER, lifecycle_stage TEXT);
            CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT, step INTEGER, is_nan INTEGER);
            CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
            CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
            INSERT INTO experiments VALUES (1, 'x');
            INSERT INTO runs VALUES ('r', 'waiting', 'RUNNING', 1000, NULL, 1, 'active');
            INSERT INTO metrics VALUES ('loss', 1.0, 1000, 'r', 0, 0);
            """
        )
    connection.close()
    return path


def test_rows_that_a_program_has_not_yet_moved_into_its_database_are_read_too(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO metrics VALUES ('loss', 0.5, 2000, 'r', 1, 0)")
        connection.commit()
        assert Path(f"{database}-wal").stat().st_size
        before = tree(database.parent)
        imported(database)
        assert points(load("waiting")) == {"loss": [(0, 1.0), (1, 0.5)]}
        assert tree(database.parent) == before
    connection.close()


def test_a_run_of_many_is_updated_alone(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO runs VALUES ('s', 'other', 'FINISHED', 1000, 2000, 1, 'active')")
        connection.execute("INSERT INTO metrics VALUES ('loss', 3.0, 1000, 's', 0, 0)")
    connection.close()
    imported(database)
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO metrics VALUES ('loss', 0.25, 3000, 'r', 2, 0)")
    connection.close()
    outcomes = {outcome.name: (outcome.action, outcome.new_rows) for outcome in imported(database)}
    assert outcomes == {"waiting": ("updated", 1), "other": ("unchanged", 0)}


def test_a_damaged_database_is_read_as_far_as_it_is_whole(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        rows = [("loss", float(step), 1000 + step, "r", step, 0) for step in range(1, 20_000)]
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    data = bytearray(database.read_bytes())
    middle = len(data) // 8192 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    database.write_bytes(data)
    (outcome,) = imported(database)
    assert any("could be read up to row" in problem for problem in outcome.problems)
    found = points(load("waiting"))["loss"]
    assert 0 < len(found) < 20_000
    assert found == [(step, float(step or 1)) for step, _ in found]


def test_views_and_odd_values_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE experiments (experiment_id, name);
            CREATE TABLE runs (run_uuid, name, status, start_time, end_time, experiment_id, lifecycle_stage);
            CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);
            CREATE TABLE real_params (key, value, run_uuid);
            CREATE VIEW params AS SELECT key, load_extension('x') AS value, run_uuid FROM real_params;
            CREATE TABLE tags (key, value, run_uuid);
            """
        )
    connection.close()
    assert command(path) == 2  # not a store: one of its tables is a view
    with sqlite3.connect(path) as connection:
        connection.execute("DROP VIEW params")
        connection.execute("CREATE TABLE params (key, value, run_uuid)")
        connection.execute("INSERT INTO runs VALUES (X'00ff', 'of no id', 7, 0, 0, 1, 'active')")
        connection.execute("INSERT INTO runs VALUES ('r', NULL, 7, 'soon', 1e400, '../..', 'active')")
        rows = [("a", "text", 1, 0), ("b", 1.5, "x", 0), ("c", 2.5, 1000, "y"), ("d", math.pi, 1000, None)]
        for key, value, moment, step in rows:
            connection.execute("INSERT INTO metrics VALUES (?, ?, ?, 'r', ?, 0)", (key, value, moment, step))
    connection.close()
    assert command(path) == 0
    assert points(load("r")) == {"d": [(0, math.pi)]}
    assert "3 rows of the table" in load("r").info["origin"]["problems"][0]
