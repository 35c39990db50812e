"""``darkit show``: one run, for a person and for programs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from darkit.runs import files, load
from darkit.runs.graph import Graph, Node, write_graph
from tests.cli.parts import done, refused


def test_it_shows_state_losses_checkpoints_and_configs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "show", "numbers")
    lines = out.splitlines()
    assert lines[0] == "numbers finished"
    facts = [line.split(maxsplit=1) for line in lines[1 : lines.index("config")]]
    assert ["model", "darkit.examples.mymodel.MyModel"] in [[key, value.rstrip()] for key, value in facts]
    assert ["step", "4 of 4"] in [[key, value.rstrip()] for key, value in facts]
    log = load("numbers").log()
    best, last = log["train_loss"].min(), log["train_loss"][-1]
    assert f"best {best:.4g}, last {last:.4g}" in out
    checkpoints = [value.split()[0] for key, value in facts if key == "checkpoint"]
    assert checkpoints == ["iter-2-ckpt", "iter-4-ckpt"]
    assert "kB" in out
    assert "input_size=12, hidden_size=24, output_size=12" in out
    assert 'optimizer="adamw"' in out


def test_the_best_accuracy_is_the_highest_and_never_infinite(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs / "numbers"
    info = json.loads((folder / "run.json").read_text())
    info["series"] = {"accuracy": ["step", "val_accuracy"], "loss": ["step", "train_loss"]}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "train_log.csv").write_text("step,val_accuracy,train_loss\n1,0.1,NaN\n2,0.9,0.5\n3,inf,-inf\n4,0.4,2.0\n")
    out = done(capsys, "show", "numbers")
    assert "best 0.9, last 0.4" in out
    assert "best 0.5, last 2" in out


def test_the_console_of_a_run_cannot_steer_the_terminal(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "numbers" / files.CONSOLE).write_text("one\n\ttwo \x1b]0;title\x07\x1b[2J\n")
    assert done(capsys, "show", "numbers", "--console") == "one\n\ttwo \\x1b]0;title\\x07\\x1b[2J\n"
    (runs / "numbers" / files.CONSOLE).unlink()
    assert done(capsys, "show", "numbers", "--console") == ""


def test_a_run_without_series_shows_every_column(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs / "numbers"
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"series": {}}))
    (folder / "train_log.csv").write_text('step,time,loss,acc,word\n1,5,2.0,0.5,"x"\n2,6,1.0,0.25,"y"\n')
    lines = [line.strip().split(maxsplit=1) for line in done(capsys, "show", "numbers").splitlines()]
    assert ["loss", "best 1, last 1"] in lines
    assert ["acc", "best 0.5, last 0.25"] in lines
    assert not {"time", "word"} & {line[0] for line in lines if line}


def test_json_has_all_of_it_for_programs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(done(capsys, "show", "numbers", "--json"))
    run = load("numbers")
    assert shown["name"] == "numbers"
    assert shown["path"] == str(run.path)
    assert shown["status"]["state"] == "finished"
    assert shown["info"] == run.info
    assert shown["config"] == run.config
    assert shown["trainer_config"] == run.trainer_config
    wanted = [(item.name, item.step, item.size) for item in run.checkpoints()]
    assert [(item["name"], item["step"], item["size"]) for item in shown["checkpoints"]] == wanted


def test_of_many_checkpoints_only_the_last_are_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in range(10, 80, 10):
        shutil.copy(runs / "numbers" / "iter-2-ckpt.pth", runs / "numbers" / f"iter-{step}-ckpt.pth")
    out = done(capsys, "show", "numbers")
    assert "4 earlier; --json lists all" in out
    assert [line.split()[1] for line in out.splitlines() if "iter-" in line] == [
        f"iter-{step}-ckpt" for step in (30, 40, 50, 60, 70)
    ]


def test_a_crash_is_shown_with_its_reason_and_traceback(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = json.loads((runs / "text" / "status.json").read_text())
    status |= {"state": "crashed", "reason": "ValueError: no", "traceback": "Traceback\n  [bold] x" + "y" * 200 + "\n"}
    (runs / "text" / "status.json").write_text(json.dumps(status))
    out = done(capsys, "show", "text")
    assert out.startswith("text crashed\n")
    assert "reason      ValueError: no" in out
    assert out.endswith("traceback\nTraceback\n  [bold] x" + "y" * 200 + "\n"), "as it was, without markup or new lines"


def test_a_damaged_run_is_shown_with_what_is_left(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run.json", "config.json", "trainer_config.json", "status.json", "train_log.csv"):
        (runs / "text" / name).write_text("")
    assert done(capsys, "show", "text").startswith("text crashed\n")
    json.loads(done(capsys, "show", "text", "--json"))


def test_a_run_that_is_not_there_is_said_with_what_there_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "show", "nunbers")
    assert said.startswith("There is no run 'nunbers' in ")
    assert said.endswith("Did you mean 'numbers'? Available: numbers, text.")
    assert refused(capsys, "show", "").startswith("The run name '' is empty")
    assert refused(capsys, "show", "a/b").startswith("The run name 'a/b' holds a character")


def test_untracked_code_and_the_number_of_packages_are_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "numbers" / files.RUN
    for git, shown in (
        (
            {"commit": "abc", "diff": "-x", "untracked": ["a.py", "b\x1b[2J.py"]},
            "abc with changes, untracked files: a.py,",
        ),
        ({"commit": "", "diff": "", "untracked": ["a.py"]}, "no commit yet, untracked files: a.py"),
        ({"commit": "abc", "diff": ""}, "abc"),
    ):
        files.write_json(path, {**files.read_json(path), "git": git})
        out = done(capsys, "show", "numbers")
        assert f" {shown}" in out
        assert "\x1b" not in out
    packages = load("numbers").environment["packages"]
    assert f"{len(packages)}, with their versions in environment.json" in out
    assert json.loads(done(capsys, "show", "numbers", "--json"))["packages"] == packages
    (runs / "numbers" / files.ENVIRONMENT).write_text('{"packages": 5}')
    assert "environment.json" not in done(capsys, "show", "numbers")
    (runs / "numbers" / files.ENVIRONMENT).unlink()  # as of a run from before
    assert "environment.json" not in done(capsys, "show", "numbers")


def test_a_fork_shows_what_it_began_from_and_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs / "numbers"
    info = json.loads((folder / "run.json").read_text())
    ancestors = [{"parent": "first", "parent_id": "0", "checkpoint": "iter-3-ckpt"}]
    info["fork"] = {"parent": "old\x1b[2J", "checkpoint": "iter-2-ckpt", "sha256": "ab" * 32, "ancestors": ancestors}
    info["fork"]["changes"] = {"lr": [0.001, 0.0003], "nonsense": 3}
    (folder / "run.json").write_text(json.dumps(info))
    out = done(capsys, "show", "numbers")
    assert r"old\x1b[2J:iter-2-ckpt (sha256 abababababab)" in out
    assert ["differs from parent", "lr 0.001 -> 0.0003"] in [line.rstrip().split("  ", 1) for line in out.splitlines()]
    assert "first:iter-3-ckpt" in out
    assert json.loads(done(capsys, "show", "numbers", "--json"))["fork"]["changes"]["lr"] == [0.001, 0.0003]
    info["fork"] |= {"parent": "text", "parent_id": load("text").info["id"]}
    (folder / "run.json").write_text(json.dumps(info))
    assert "numbers (from iter-2-ckpt)" in done(capsys, "show", "text")
    assert json.loads(done(capsys, "show", "text", "--json"))["forks"] == [
        {"name": "numbers", "checkpoint": "iter-2-ckpt"}
    ]
    info["fork"]["parent_id"] = "of another run"
    (folder / "run.json").write_text(json.dumps(info))
    assert "numbers" not in done(capsys, "show", "text")
    info["fork"] = ["no", "fork"]
    (folder / "run.json").write_text(json.dumps(info))
    assert "differs from parent" not in done(capsys, "show", "numbers")


def test_what_a_step_computes_is_shown_with_the_pace_of_the_log(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs / "numbers"
    info = json.loads((folder / "run.json").read_text())
    work = {"parameters": 1234, "trained": 1000, "samples": 4, "tokens": 8, "flops": 10**6, "peak": 1e9}
    (folder / "run.json").write_text(json.dumps(info | {"work": work | {"peak_source": "given\x1b[2J"}}))
    (folder / "train_log.csv").write_text("step,time\n1,10.0\n2,10.5\n3,11.0\n")
    out = done(capsys, "show", "numbers")
    for text in ("1,234, of which 1,000 are trained", "8 samples/s, 16 tokens/s", "1e+06 per step, 2e+06 per second"):
        assert text in out
    assert r"0.2% of 1e+09 per second (given\x1b[2J)" in out


def test_the_graph_of_a_model_has_shapes_parameters_and_edges(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = " ".join(done(capsys, "show", "numbers", "--graph").split())
    assert recorded.startswith("numbers the first batch of the training")
    assert re.search(r"\(model\) \w+ 16x\d+ 16x\d+ [\d,]+", recorded)
    (runs / "numbers" / "graph.json").unlink()  # as in a run of an earlier version
    page = " ".join(done(capsys, "show", "numbers", "--graph").split())
    assert page.startswith("numbers batches of 2")
    assert page.partition("module class")[2] == recorded.partition("module class")[2].replace(" 16x", " 2x")
    assert re.search(r"\(model\) \w+ 2x\d+ 2x\d+ [\d,]+", page)
    assert "Linear" in page
    (runs / "numbers" / "config.json").write_text("{")
    said = refused(capsys, "show", "numbers", "--graph")
    assert said.startswith("The graph of 'numbers' cannot be drawn: ")
    assert "--format" not in said


def test_a_recorded_graph_is_printed_as_text_and_says_what_is_missing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Node("", "Net\x1b[2J", 7, False, 1, [(2, 3)], [()])
    part = Node("a.b", "[red]X[/red]", 1_234, True, 3, [], [(2,)], ["input", "c", "d", "e", "f"], 2)
    write_graph(runs / "numbers", Graph([root, part, Node("never", "Called", 0, True)], 5, "torch.compile\x07"))
    out = done(capsys, "show", "numbers", "--graph")
    assert "\x1b" not in out
    assert "\x07" not in out
    page = " ".join(out.split())
    assert r"(model) Net\x1b[2J 2x3 1 7 b x3 [red]X[/red] 2 1,234 input, c, d, e, and 3 more" in page
    assert r"and 5 more modules Not all calls were seen: torch.compile\x07." in page
    assert "never" not in page
