"""The way back: other tools read with their own code what a run has logged."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import polars
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from darkit.cli.main import main
from darkit.runs import Run, base, files, load
from darkit.runs.log import CsvLog
from darkit.runs.media import MediaStore, read_media, read_medium
from darkit.runs.notes import Notes, write_notes
from tests.integrations.importers.parts import comparable, imported, points

ROWS = [
    {"step": 1, "time": 1000.5, "loss": 1.0, "word": 'a, "b"', "flag": True},
    {"step": 2, "time": 1001.5, "loss": math.nan, "lr": 1e-3},
    {"step": 2, "time": 1001.75, "loss": 0.1},
    {"step": 4, "time": 1002.5, "loss": -math.inf, "val/acc": 0.3333333333333333, "word": "zwei"},
]
CONFIG = {"lr": 0.1, "layers": 3, "deep": {"name": "x"}, "sizes": [1, 2], "flag": True}


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 3, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\1\2" * 3))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with odd values and media; the working directory is an empty one."""
    folder = base() / "it"
    folder.mkdir(parents=True)
    log = CsvLog(folder / files.LOG, ["step", "time", "loss"])
    log.append(ROWS)
    files.write_json(folder / files.RUN, {"id": "x", "created": 1000.0, "git": {"commit": "abc"}})
    files.write_json(folder / files.STATUS, {"state": "crashed", "step": 4, "heartbeat": 1003.0})
    files.write_json(folder / files.MODEL_CONFIG, CONFIG)
    write_notes(folder, Notes(tags=("plain", "team=x"), note="a note"))
    store = MediaStore(folder)
    store.add("image", "picture", 2, png(), "png", time=1001.0)
    store.add("text", "note", 2, b"ein Text", "txt", time=1002.0)
    store.add("histogram", "weights", 3, b'{"edges": [0, 1, 2.5], "counts": [3, 4]}', "json", time=1003.0)
    store.add("table", "table", 3, b'{"columns": ["a", "b"], "rows": [[1, "x|y"], [null, 2]]}', "json", time=1003.0)
    store.add("audio", "sound", 3, b"RIFF\0\0\0\0WAVEfmt ", "wav", time=1003.0)
    store.add("figure", "figure", 4, b'{"data": []}', "json", time=1004.0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Run(folder)


def test_tensorboards_reader_finds_everything(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "it", "--format", "tensorboard"]) == 0
    assert "4 rows and 5 media of it (not 1 figure (.json))" in capsys.readouterr().out
    reader = EventAccumulator("it-tensorboard").Reload()
    scalars = {
        tag: [(one.step, comparable(one.value)) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }
    assert scalars == {
        "loss": [(1, 1.0), (2, "NaN"), (2, pytest.approx(0.1)), (4, -math.inf)],
        "lr": [(2, pytest.approx(1e-3))],
        "val/acc": [(4, pytest.approx(1 / 3))],
        "flag": [(1, 1.0)],
    }
    assert [one.wall_time for one in reader.Scalars("loss")] == [1000.5, 1001.5, 1001.75, 1002.5]
    (image,) = reader.Images("picture")
    assert (image.encoded_image_string, image.width, image.height, image.step) == (png(), 2, 3, 2)
    (sound,) = reader.Audio("sound")
    assert sound.encoded_audio_string.startswith(b"RIFF")
    (histogram,) = reader.Histograms("weights")
    assert (histogram.histogram_value.bucket, histogram.histogram_value.bucket_limit) == ([3, 4], [1, 2.5])
    texts = {
        tag: [one.tensor_proto.string_val[0].decode() for one in reader.Tensors(tag)]
        for tag in ("word", "note", "table")
    }
    assert texts == {
        "word": ['a, "b"', "zwei"],
        "note": ["ein Text"],
        "table": ["| a | b |\n| --- | --- |\n| 1 | x\\|y |\n|  | 2 |"],
    }
    (content,) = reader.PluginTagToContent("hparams").values()
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (hparams["lr"].number_value, hparams["flag"].bool_value) == (pytest.approx(0.1), True)


def test_a_run_exported_and_imported_is_the_same(run: Run) -> None:
    assert main(["export", "it", "--format", "tensorboard", "--output", "events"]) == 0
    (outcome,) = imported(Path("events"))
    back = load(outcome.name)
    expected = points(run, ["loss", "lr", "val/acc"])
    assert {
        name: [(step, pytest.approx(value) if isinstance(value, float) else value) for step, value in one]
        for name, one in expected.items()
    } == points(back, ["loss", "lr", "val/acc"])
    kept = {medium.key: read_medium(back.path, medium) for medium in read_media(back.path)}
    for medium in read_media(run.path):
        if medium.kind in ("image", "text", "audio"):
            assert kept[medium.key] == read_medium(run.path, medium)
    assert json.loads(kept["weights"]) == {"edges": [0.0, 1.0, 2.5], "counts": [3, 4]}
    assert back.config["lr"] == 0.1


def test_csv_has_every_value(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with (run.path / files.LOG).open("a") as file:
        file.write("7,half a li")
    assert main(["export", "it", "--format", "csv"]) == 0
    assert "4 rows of 7 columns of it, without its 6 media" in capsys.readouterr().out
    with Path("it.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: value for name, value in row.items() if value} for row in rows] == [
        {
            name: str(value).lower() if isinstance(value, bool) else str(value).replace("nan", "NaN")
            for name, value in row.items()
        }
        for row in ROWS
    ]


def test_parquet_has_every_value_and_its_type(run: Run) -> None:
    assert main(["export", "it", "--format", "parquet", "--output", "x.parquet"]) == 0
    frame = polars.read_parquet("x.parquet")
    assert frame.equals(run.log())
    assert frame.schema["step"] == polars.Int64


MLFLOW = """
import json
import mlflow

mlflow.set_tracking_uri("sqlite:///it-mlflow/mlflow.db")
runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
(run,) = runs
client = mlflow.MlflowClient()
histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
metrics = {name: [(one.step, one.value, one.timestamp) for one in history] for name, history in histories.items()}
facts = {"name": run.info.run_name, "status": run.info.status, "start": run.info.start_time, "end": run.info.end_time}
print(json.dumps(facts | {"metrics": metrics, "params": run.data.params, "tags": run.data.tags}))
"""


def test_mlflow_finds_the_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = [sys.executable, "-m", "darkit", "export", "it", "--format", "mlflow"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "without 1 columns of text, without its 6 media" in done.stdout
    assert sorted(path.name for path in Path("it-mlflow").iterdir()) == ["darkit-export.json", "mlflow.db"]
    done = subprocess.run([sys.executable, "-c", MLFLOW], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (found["name"], found["status"], found["start"], found["end"]) == ("it", "FAILED", 1_000_000, 1_003_000)
    metrics = {
        name: [[step, comparable(value), moment] for step, value, moment in one]
        for name, one in found["metrics"].items()
    }
    assert metrics["val/acc"] == [[4, 1 / 3, 1_002_500]]
    assert metrics["loss"][:3] == [[1, 1.0, 1_000_500], [2, "NaN", 1_001_500], [2, 0.1, 1_001_750]]
    assert metrics["loss"][3][1] == -sys.float_info.max  # MLflow's own way to keep an infinity
    assert metrics["flag"] == [[1, 1.0, 1_000_500]]
    assert found["params"] == {"lr": "0.1", "layers": "3", "deep.name": "x", "sizes": "[1, 2]", "flag": "True"}
    assert found["tags"]["team"] == "x"
    assert found["tags"]["mlflow.note.content"] == "a note"
    assert found["tags"]["darkit.state"] == "crashed"
    (outcome,) = imported(Path("it-mlflow"))
    assert points(load(outcome.name), ["val/acc"]) == points(run, ["val/acc"])


def test_without_mlflow_its_name_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["export", "it", "--format", "mlflow"]) == 2
    assert "pip install mlflow" in capsys.readouterr().err
    assert not Path("it-mlflow").exists()


@pytest.mark.parametrize("name", ["tensorboard", "csv", "parquet", "mlflow"])
def test_what_cannot_be_written_is_refused(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "it:iter-4-ckpt", "--format", name]) == 2
    assert "not a checkpoint" in capsys.readouterr().err
    (run.path / files.LOG).unlink()
    shutil.rmtree(run.path / files.MEDIA)
    assert main(["export", "it", "--format", name]) == 2
    assert "has not logged anything yet" in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["tensorboard", "csv", "parquet", "mlflow"])
def test_a_hostile_run_is_exported_or_refused_in_one_sentence(
    name: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "half \ud800": "\ud800",
        "huge": 10**400,
        "deep": {"a/../b": [1, {"x": None}]},
        "": "",
        "x" * 500: "y" * 9000,
    }
    (run.path / files.MODEL_CONFIG).write_text(json.dumps(config))
    (run.path / files.RUN).write_text('{"created": 1e308, "git": 5, "series": []}')
    header = 'step,time,"a/../b","a b\\c",step,"%s"' % ("z" * 400)
    (run.path / files.LOG).write_text(
        f'{header}\n1e300,inf,1,2,3,4\nx,,nan,inf,"t",-0.0\n"\n9223372036854775807,1,2,3,4,5\n'
    )
    index = run.path / files.MEDIA / "index.jsonl"
    lines = index.read_text().splitlines()
    for content in (b'{"edges": [0, "x"], "counts": ["y"]}', b'{"columns": 5, "rows": {}}', b"[" * 100_000):
        kind = "table" if b"columns" in content else "histogram"
        MediaStore(run.path).add(kind, "odd", 1, content, "json", time=1.0)
    index.write_text("\n".join([*index.read_text().splitlines(), lines[0].replace("picture", "half \\ud800"), "{", ""]))
    code = main(["export", "it", "--format", name, "--output", "out"])
    said = capsys.readouterr()
    assert code in (0, 2)
    assert "Traceback" not in said.err
    assert Path("out").exists() == (code == 0)
