"""W&B's offline runs: what its client has written is what the run holds, read without it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darkit.errors import SourceError
from darkit.integrations.importers.recognise import find_sources
from darkit.integrations.importers.wandb_media import media_of
from darkit.integrations.importers.wandb_records import _contents
from darkit.runs import base, files
from darkit.runs.media import read_media, read_medium
from darkit.runs.notes import read_notes
from tests.integrations.importers.parts import by_name, command, imported, only_run, points, tree

SCRIPT = """
import math, sys
import numpy as np
import wandb

run = wandb.init(
    mode="offline", project="images", name=sys.argv[2] or None, dir=sys.argv[1],
    config={"lr": 1e-3, "deep": {"a": [1, 2]}},
    tags=["old", "second"], notes="a note", group="g", settings=wandb.Settings(console="wrap", disable_git=True),
)
print("what it printed")
run.define_metric("nested.x", step_metric="step")
for step in range(50):
    run.log({
        "loss": 1 / (step + 1), "nested": {"x": step}, "flag": step % 2 == 0, "word": f"w{step}", "nan": math.nan,
        "inf": -math.inf, "step": 2 * step,
    })
run.log({"late": 1.5, "long": "x" * 40_000}, step=70)
run.log({"late": 2.5}, step=71)
pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
run.log({
    "histogram": wandb.Histogram(np_histogram=([3, 4], [0.0, 1.0, 2.0])),
    "table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [None, "y"]]),
    "html": wandb.Html("<b>x</b>", inject=False),
    "image": wandb.Image(pixels, caption="a caption"),
    "images": [wandb.Image(pixels, caption="first"), wandb.Image(pixels + 1, caption="second")],
    "numbers": [1, 2],
}, step=80)
run.summary["chosen"] = 0.25
run.config["later"] = "x"
if sys.argv[3]:
    raise RuntimeError(sys.argv[3])
run.finish()
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``wandb`` with a run that finished and one that failed."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "script.py").write_text(SCRIPT)
    for name, error in (("the name", ""), ("", "it failed")):
        words = [sys.executable, "script.py", str(folder), name, error]
        environment = os.environ | {"WANDB_SILENT": "true", "HOME": str(folder)}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert bool(done.returncode) == bool(error), done.stderr
    return folder / "wandb"


@pytest.fixture
def logs(written: Path, tmp_path: Path) -> Path:
    """A copy with the finished run alone, and W&B's link to it."""
    shutil.copytree(written, tmp_path / "wandb", symlinks=True)
    for folder in (tmp_path / "wandb").glob("offline-run-*"):
        if b"it failed" in next(folder.glob("*.wandb")).read_bytes():
            shutil.rmtree(folder)
    return tmp_path / "wandb"


def file_of(logs: Path) -> Path:
    (file,) = logs.glob("offline-run-*/*.wandb")
    return file


def history(file: Path) -> list[tuple[str, int, Any]]:
    """Decode the history with W&B's own protocol."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for content, _ in _contents(file):
        record = Record.FromString(content)
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = ".".join(item.nested_key) or item.key
                found.append((name, record.history.step.num, json.loads(item.value_json)))
    return found


def test_the_history_is_what_was_logged(logs: Path) -> None:
    (outcome,) = imported(logs)
    assert (outcome.name, outcome.state, outcome.rows) == ("the name", "finished", 52)
    found = points(only_run())
    assert found["loss"] == [(step, 1 / (step + 1)) for step in range(50)]
    assert found["nested.x"] == [(step, step) for step in range(50)]
    assert found["flag"] == [(step, step % 2 == 0) for step in range(50)]
    assert found["word"] == [(step, f"w{step}") for step in range(50)]
    assert found["inf"] == [(step, -math.inf) for step in range(50)]
    assert found["nan"] == [(step, "NaN") for step in range(50)]
    assert found["logged_step"] == [(step, 2 * step) for step in range(50)]
    assert found["late"] == [(70, 1.5), (71, 2.5)]
    ((step, text),) = found["long"]
    assert (step, text) == (70, "x" * 2000)  # of a long text, the beginning


def test_the_history_is_what_wandbs_own_protocol_decodes(logs: Path) -> None:
    wanted = [(name, step, value) for name, step, value in history(file_of(logs)) if not isinstance(value, list)]
    imported(logs)
    cells = {"loss", "nested.x", "flag", "word", "nan", "inf", "late"}
    assert points(only_run(), sorted(cells)) == by_name(one for one in wanted if one[0] in cells)
    moments = {step: value for name, step, value in wanted if name == "_timestamp"}
    log = only_run().log()
    assert all(moments[row["step"]] == row["time"] for row in log.iter_rows(named=True))


def test_config_words_and_facts(logs: Path) -> None:
    imported(logs, tags=["mine"])
    run = only_run()
    assert run.config == {"lr": 0.001, "deep": {"a": [1, 2]}, "later": "x"}
    assert read_notes(run.path).tags == ("old", "second", "mine")
    assert read_notes(run.path).note == "a note"
    assert run.info["origin"]["project"] == "images"
    assert run.info["origin"]["summary"]["chosen"] == 0.25
    assert run.info["command"][1].endswith("script.py")
    assert run.info["command"][2:] == [str(Path(run.info["command"][1]).parent), "the name", ""]
    assert "wandb" in run.environment["packages"]
    assert (run.path / files.CONSOLE).read_text() == "what it printed\n"
    assert (run.path / files.SYSTEM_LOG).read_text().startswith("time,step,system.")
    assert run.created < run.details.heartbeat
    assert run.series["nested.x"] == ["logged_step", "nested.x"]
    assert run.series["loss"] == ["step", "loss"]
    assert run.details.step == 80


def test_media_are_kept(logs: Path) -> None:
    (outcome,) = imported(logs)
    run = only_run()
    media = {medium.key: medium for medium in read_media(run.path)}
    assert {medium.step for medium in media.values()} == {80}
    assert {key: medium.kind for key, medium in media.items()} == {
        "histogram": "histogram",
        "table": "table",
        "html": "text",
        "image": "image",
        "images/0": "image",
        "images/1": "image",
    }
    assert media["image"].caption == "a caption"
    assert media["images/1"].caption == "second"
    pictures = {path.read_bytes() for path in logs.glob("*/files/media/images/*.png")}
    assert {read_medium(run.path, media[key]) for key in ("image", "images/0", "images/1")} == pictures
    assert read_medium(run.path, media["html"]) == b"<b>x</b>"
    assert json.loads(read_medium(run.path, media["histogram"]))["counts"] == [3, 4]
    assert json.loads(read_medium(run.path, media["table"]))["columns"] == ["a", "b"]
    assert any("lists (1)" in problem for problem in outcome.problems)


def test_a_script_that_raised_has_crashed(written: Path) -> None:
    outcomes = {outcome.state: outcome.name for outcome in imported(written)}
    assert set(outcomes) == {"finished", "crashed"}
    assert outcomes["finished"] == "the name"


def test_the_source_is_not_touched_and_a_second_import_writes_nothing(logs: Path) -> None:
    before = tree(logs)
    imported(logs)
    assert tree(logs) == before
    runs = tree(base())
    assert [outcome.action for outcome in imported(logs)] == ["unchanged"]
    assert tree(base()) == runs


def test_a_log_that_grows_is_added_to(logs: Path) -> None:
    file = file_of(logs)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 10])
    (first,) = imported(logs)
    assert first.state == "unknown"
    assert "no exit record" in only_run().details.reason
    assert 0 < first.rows < 52
    file.write_bytes(whole)
    (second,) = imported(logs)
    assert (second.action, second.state, second.rows) == ("updated", "finished", 52)
    assert second.new_rows == 52 - first.rows
    assert only_run().info["origin"]["problems"] == list(second.problems)


def test_a_file_cut_anywhere_is_read_as_far_as_it_is_whole(logs: Path) -> None:
    file = file_of(logs)
    whole = file.read_bytes()
    source = find_sources(file).sources[0]
    everything = list(source.read().rows)
    for cut in (*range(8, len(whole), 1499), 32767, 32768, 32770, 32774, len(whole) - 1):
        file.write_bytes(whole[:cut])
        try:
            found = source.read()
        except SourceError:  # not even the first record
            continue
        rows = list(found.rows)
        assert rows == everything[: len(rows)]
        assert found.state == "unknown"


def test_damaged_bytes_end_the_reading(logs: Path) -> None:
    file = file_of(logs)
    whole = file.read_bytes()
    source = find_sources(file).sources[0]
    everything = list(source.read().rows)
    for place in range(7, len(whole), 2999):
        data = bytearray(whole)
        data[place] ^= 0x55
        file.write_bytes(data)
        try:
            found = source.read()
        except SourceError:
            continue
        rows = list(found.rows)
        assert rows == everything[: len(rows)]
        assert any("damaged" in problem or "half written" in problem for problem in found.problems)


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "media/../../secret.png", "linked/secret.png"])
def test_media_outside_of_the_run_are_not_read(logs: Path, path: str) -> None:
    folder = file_of(logs).parent / "files"
    (logs / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "linked").symlink_to(logs)
    with pytest.raises(SourceError):
        list(media_of("x", 0, 0.0, {"_type": "image-file", "path": path}, folder))


def test_missing_media_are_said(logs: Path) -> None:
    shutil.rmtree(file_of(logs).parent / "files" / "media" / "images")
    (outcome,) = imported(logs)
    assert (outcome.action, outcome.media) == ("imported", 3)
    assert any("2 media could not be read" in problem for problem in outcome.problems)


def test_another_version_of_the_format_is_refused(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(logs)
    data = bytearray(file.read_bytes())
    data[6] = 9
    file.write_bytes(data)
    assert command(file) == 1
    assert "version 9" in capsys.readouterr().err
