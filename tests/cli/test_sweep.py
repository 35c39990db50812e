"""``darkit sweep`` and ``seeds=``, with real trials in processes of their own."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
import torch

from darkit.cli.main import main
from darkit.errors import StorageError
from darkit.runs import Run, load
from darkit.runs.lock import is_locked
from darkit.sweep.folder import SweepFolder
from tests.children import Child, Zygote
from tests.cli.parts import done, names, refused

SMALL = ("model=mymodel", "data.samples=64", "data.val_samples=16", "trainer.tensorboard=false", "trainer.max_step=12")
EVALUATED = (*SMALL, "trainer.eval_step_interval=2")
SPACE = ("trainer.lr=interval(1e-4,1e-1,log)", "model.config.hidden_size=8,16")


def table(home: Path, sweep: str, name: str = "trials.csv") -> list[dict[str, str]]:
    with (home / "sweeps" / sweep / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results(home: Path, sweep: str) -> list[dict[str, str]]:
    return [{key: text for key, text in row.items() if key != "runs"} for row in table(home, sweep)]


def weights(name: str) -> dict[str, torch.Tensor]:
    checkpoint = load(name).latest_checkpoint()
    assert checkpoint is not None
    found: dict[str, torch.Tensor] = torch.load(checkpoint.path, weights_only=True)["state_dict"]
    return found


def same(one: str, other: str) -> bool:
    first, second = weights(one), weights(other)
    logs = [load(name).log().drop("time") for name in (one, other)]
    return logs[0].equals(logs[1]) and all(torch.equal(first[key], second[key]) for key in first)


def test_a_sweep_trains_its_trials_as_runs_and_tells_the_best(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", *EVALUATED, *SPACE, "sweep.trials=4", "sweep.jobs=2", "name=s"]
    out = done(capsys, *command)
    rows = table(home, "s")
    assert [row["state"] for row in rows] == ["finished"] * 4
    assert names(home / "base") == {row["runs"] for row in rows}
    for row in rows:
        run = load(row["runs"])
        lr, size = float(row["trainer.lr"]), int(row["model.config.hidden_size"])
        assert run.name == f"s-lr={lr:.4g}-hidden_size={size}"
        assert (run.trainer_config["lr"], run.config["hidden_size"], run.status) == (lr, size, "finished")
        assert float(row["val_loss"]) == run.log()["val_loss"].min()
        assert run.info["sweep"] == {"name": "s", "trial": int(row["trial"])}
        assert run.info["group"] == "s"
        assert f"trainer.lr={row['trainer.lr']}" in run.info["command"]
    best = json.loads((home / "sweeps" / "s" / "best.json").read_text())
    assert best["value"] == min(float(row["val_loss"]) for row in rows)
    assert out.count("finished") == 8, "a line and a row for each"
    again = next(line for line in out.splitlines() if " train model=" in line)
    assert main([*shlex.split(again)[1:], "name=again"]) == 0
    assert same("again", best["runs"][0]), "what it says trains the best one again"

    before = {path: path.stat().st_mtime_ns for path in (home / "base").rglob("*")}
    capsys.readouterr()
    shown = done(capsys, *command)
    assert {path: path.stat().st_mtime_ns for path in (home / "base").rglob("*")} == before, "nothing is repeated"
    assert shown.splitlines()[-1] == f"in {home / 'sweeps' / 's'}"
    assert done(capsys, "sweep") == "s\n"
    assert done(capsys, "sweep", "s").splitlines()[0] == "s: 4 of 4 trials done"
    assert "other settings (sweep.sampler)" in refused(capsys, *command, "sweep.sampler=random")
    done(capsys, *command[:-2], "name=s", "sweep.trials=5", "sweep.jobs=1")
    assert [row["state"] for row in table(home, "s")] == ["finished"] * 5
    assert table(home, "s")[:4] == rows


def test_halving_pauses_and_promotes_by_exact_resume(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*EVALUATED, SPACE[0], "sweep.trials=4", "sweep.pruner=halving", "sweep.factor=2", "name=h"]
    done(capsys, "sweep", *words, "sweep.min_step=3", "sweep.jobs=2")
    rungs = table(home, "h", "rungs.csv")
    assert [(row["step"], row["promoted"]) for row in rungs] == [
        *(("4", "yes" if row["promoted"] == "yes" else "no") for row in rungs[:4]),
        *(("6", "yes" if row["promoted"] == "yes" else "no") for row in rungs[4:]),
    ]
    assert [row["promoted"] for row in rungs].count("yes") == 3
    first = {int(row["trial"]): float(row["value"]) for row in rungs[:4]}
    assert {int(row["trial"]) for row in rungs[4:]} == {*sorted(first, key=first.__getitem__)[:2]}
    rows = table(home, "h")
    assert sorted((row["state"], row["step"]) for row in rows) == [
        *(("finished", "12"), ("pruned", "4"), ("pruned", "4"), ("pruned", "6"))
    ]
    (best,) = (row for row in rows if row["state"] == "finished")
    assert main(["train", *EVALUATED, f"trainer.lr={best['trainer.lr']}", "name=never-paused"]) == 0
    assert same("never-paused", best["runs"])
    assert len(load(best["runs"]).info["continued"]) == 2
    left = next(row for row in rows if row["state"] == "pruned")
    assert load(left["runs"]).status == "stopped"
    assert "Paused at step" in load(left["runs"]).details.reason
    done(capsys, "train", f"resume={left['runs']}")
    assert load(left["runs"]).status == "finished", "a paused trial can be promoted by hand"


def test_seeds_repeat_a_training_as_one_group(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "train", *SMALL, "seeds=3", "name=g")
    assert names(home / "base") == {f"g-seed={seed}" for seed in range(3)}
    values = [float(load(f"g-seed={seed}").log()["val_loss"].min()) for seed in range(3)]  # type: ignore[arg-type]
    assert [load(f"g-seed={seed}").trainer_config["seed"] for seed in range(3)] == [0, 1, 2]
    assert len({*values}) == 3
    assert all(load(f"g-seed={seed}").info["group"] == "g" for seed in range(3))
    series = polars.Series(values)
    spread = f"val_loss: mean {series.mean():.6g} ± {series.std():.6g} over 3 seeds"
    assert spread in out
    done(capsys, "sweep", *SMALL, "model.config.hidden_size=8,16", "seeds=2", "trainer.seed=5", "name=s")
    assert len(table(home, "s")) == 2
    for row in table(home, "s"):
        runs = [load(name) for name in row["runs"].split()]
        assert [run.name for run in runs] == [
            f"s-hidden_size={row['model.config.hidden_size']}-seed={n}" for n in (5, 6)
        ]
        mean = sum(float(run.log()["val_loss"].min()) for run in runs) / 2  # type: ignore[arg-type]
        assert float(row["val_loss"]) == mean


def test_a_trial_that_fails_does_not_end_the_sweep_and_is_tried_again(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import torch, pathlib\nclass Model(torch.nn.Linear):\n    def __init__(self, size=1):\n"
        "        if size == 2 and not pathlib.Path('mended').exists():\n            raise ValueError('too small')\n"
        "        super().__init__(12, 12)\n        self.scale = 1e30 if size == 3 else 1\n"
        "    def forward(self, x):\n        return super().forward(x) * self.scale ** 2\n"
    )
    (tmp_path / "of_a_sweep.py").write_text(code)
    (tmp_path / "configs/model").mkdir(parents=True)
    (tmp_path / "configs/model/odd.yaml").write_text("_target_: of_a_sweep.Model\nsize: 1\n")
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "model=odd", "data=regression", *SMALL[1:], "model.size=1,2,3", "sweep.sampler=grid", "name=s"]
    assert main(words) == 1
    err = capsys.readouterr().err
    (failed,) = (row for row in table(home, "s") if row["state"] == "failed")
    assert f"Error: Trial {failed['trial']} failed. s-size=2: " in err
    assert "too small" in err
    states = {row["model.size"]: row["state"] for row in table(home, "s")}
    assert states["1"] == "finished"
    assert states["3"] in ("diverged", "failed")
    (tmp_path / "mended").touch()
    main(words)
    assert {row["model.size"]: row["state"] for row in table(home, "s")}["2"] == "finished"


def test_a_sweep_without_its_runs_or_with_other_config_files_is_kept_as_it_is(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs/model").mkdir(parents=True)
    config = tmp_path / "configs/model/odd.yaml"
    config.write_text("_target_: torch.nn.Linear\nin_features: 12\nout_features: 12\nbias: true\n")
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "model=odd", "data=regression", *SMALL[1:], "trainer.lr=0.1,0.2", "name=s"]
    done(capsys, *words, "sweep.trials=1")
    best = (home / "sweeps" / "s" / "best.json").read_bytes()
    config.write_text(config.read_text().replace("true", "false"))
    for command in ([*words, "sweep.trials=1"], ["sweep", "s", "--resume"]):
        said = refused(capsys, *command)
        assert "'s' was begun with another config (config): a config file has changed" in said
        assert said.rstrip().endswith("or give another name=.")
    config.write_text(config.read_text().replace("false", "true"))
    (home / "base").rename(home / "unmounted")

    def full(self: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr("darkit.sweep.scheduler.Scheduler.run", full)
    assert "The disk is full." in refused(capsys, *words, "sweep.trials=2")
    assert (home / "sweeps" / "s" / "best.json").read_bytes() == best


@pytest.mark.few(8)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "There is nothing to sweep: give a setting several values"),
        (("trainer.lr=1,2", "resume=x"), "A sweep names and resumes its runs itself: leave out resume=."),
        (("seeds=²",), "seeds must be a whole number from 1 to 1000"),
        (("seeds=0",), "seeds must be a whole number from 1 to 1000"),
        (("seeds=2", "trainer.seed=1,2"), "are the same: give one of them"),
        (("trainer.lr=interval(1,2)", "sweep.sampler=grid"), "but trainer.lr is an interval"),
        (("trainer.lr=1,2", "sweep.sampler=best"), "sweep.sampler must be one of tpe, random, grid, cmaes, qmc, not"),
        (("trainer.lr=1,2", "sweep.tirals=3"), "Unknown setting 'sweep.tirals'. Did you mean 'trials'?"),
        (("trainer.lr=1,2", "modl=gpt"), "Unknown setting 'modl'"),
        (("trainer.lr=1,2", "sweep.pruner=halving"), "finds no step to compare trials at"),
        (("trainer.max_step=10,20", "sweep.pruner=halving"), "fix trainer.max_step"),
        (("trainer.lr=1,2", "trainer.max_epoch=2", "sweep.pruner=hyperband"), "give trainer.max_step instead of"),
        (("trainer.lr=1,2", "seeds=2", "sweep.pruner=median"), "compares single runs: leave out seeds="),
        (("trainer.lr=1,2", "trainer.eval_step_interval=0", "sweep.pruner=median"), "compares val_loss at evaluations"),
        (("trainer.lr=1,2", "trainer.device_num=2"), "trainer.device_num must be 1, not 2"),
        (("trainer.lr=1,2", "trainer.num_nodes=2"), "trainer.num_nodes must be 1, not 2"),
        (("trainer.lr=1,2", "-m"), "'-m' is not a setting of a sweep"),
        (("trainer.lr=-1,-2",), "lr must be at least 0, not -1.0."),
        (("data.samples=-1,-2",), "The first trial of the sweep was refused. "),
        (("trainer.lr=1,2", "name=a/b"), "The run name 'a/b' holds a character"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    words: tuple[str, ...], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "sweep", *SMALL, *words)
    assert names(home) <= {"seal.key", "sweeps", "base"}
    assert names(home / "sweeps") == names(home / "base") == set()


def test_help_and_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = done(capsys, "sweep", "--help")
    assert told.index("darkit sweep KEY=VALUE ...") < told.index("examples:\n  darkit sweep")
    assert done(capsys, "sweep").startswith("No sweeps yet in ")
    with SweepFolder("s").locked():
        assert "The sweep 's' is running already." in refused(capsys, "sweep", *SMALL, "trainer.lr=1,2", "name=s")
    assert "There is no sweep 'x'" in refused(capsys, "sweep", "x")
    assert "write darkit sweep instead of darkit train" in refused(capsys, "train", *SMALL, "trainer.lr=1,2", "seeds=2")


LONG = (*SMALL[:-1], "trainer.max_step=800", "trainer.save_step_interval=50", "trainer.log_step_interval=20", *SPACE)


def wait_for(found: Callable[[], Any], child: Child) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert time.monotonic() < deadline, child.output
        time.sleep(0.02)


def middle(home: Path, sweep: str) -> bool:
    """Return whether the second trial of a sweep is in the middle of its training."""
    rows = table(home, sweep) if (home / "sweeps" / sweep / "trials.csv").exists() else []
    runs = [path for path in (home / "base").glob(f"{sweep}-*") if list(path.glob("iter-*-ckpt.json"))]
    return len(rows) >= 1 and len(runs) == 2 and any(Run(path).status == "running" for path in runs)


@pytest.mark.soak
def test_a_sweep_that_is_killed_and_run_again_finishes_as_if_it_had_not_been(home: Path, zygote: Zygote) -> None:
    words = ["sweep", *LONG, "sweep.trials=2", "sweep.seed=3"]
    child = zygote.start(["-m", "darkit", *words, "name=killed"], home)
    wait_for(lambda: middle(home, "killed"), child)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    running = [path for path in (home / "base").iterdir() if is_locked(path)]
    wait_for(lambda: not any(is_locked(path) for path in running), child)
    assert [Run(path).status for path in running] == ["stopped"], "a training notices that its sweep is gone"
    (finished,) = (row["runs"] for row in table(home, "killed") if row["state"] == "finished")
    before = {path: path.stat().st_mtime_ns for path in (home / "base" / finished).iterdir()}
    assert main([*words, "name=killed"]) == 0
    after = {path: path.stat().st_mtime_ns for path in (home / "base" / finished).iterdir()}
    assert after == before, "a finished trial is not touched"
    resumed = [load(row["runs"]) for row in table(home, "killed") if load(row["runs"]).info.get("continued")]
    assert len(resumed) == 1
    assert resumed[0].info["continued"][0]["after_step"] >= 50
    assert main([*words, "name=whole"]) == 0
    assert results(home, "killed") == results(home, "whole")
    assert [row["state"] for row in results(home, "whole")] == ["finished"] * 2
    for one, other in zip(table(home, "killed"), table(home, "whole"), strict=True):
        assert same(one["runs"], other["runs"])


def test_a_sweep_that_is_asked_to_stop_stops_its_runs_and_says_how_to_continue(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", *LONG, "trainer.max_step=1000000", "sweep.trials=4", "sweep.jobs=2", "name=s"]

    def stop() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            runs = [Run(path) for path in (home / "base").glob("s-*")]
            if len(runs) == 2 and all(run.checkpoints() for run in runs):
                break
            time.sleep(0.05)
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert main(words) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "The sweep 's' was stopped; the same command continues it."
    runs = [Run(path) for path in (home / "base").glob("s-*")]
    assert [run.status for run in runs] == ["stopped", "stopped"]
    assert not any(is_locked(run.path) for run in runs)
    for run in runs:
        checkpoint = run.latest_checkpoint()
        assert checkpoint is not None
        assert checkpoint.step == run.details.step, "the last step is saved"


@pytest.mark.soak
@pytest.mark.parametrize("pruner", ["none", "median", "halving", "hyperband"])
def test_a_sweep_that_is_killed_again_and_again_equals_an_unbroken_one(pruner: str, home: Path, zygote: Zygote) -> None:
    words = [*LONG, "trainer.eval_step_interval=50", f"sweep.pruner={pruner}", "sweep.trials=9", "sweep.jobs=2"]
    for attempt in range(30):
        child = zygote.start(["-m", "darkit", "sweep", *words, "name=killed"], home)
        killer = threading.Timer(8 + 1.37 * (attempt % 7), lambda child=child: child.send(signal.SIGKILL))  # type: ignore[misc]
        killer.start()
        code = child.wait()
        killer.cancel()
        if code == 0:
            break
        assert code == -signal.SIGKILL, child.output
    else:
        raise AssertionError(child.output)
    assert main(["sweep", *words, "name=whole"]) == 0
    assert results(home, "killed") == results(home, "whole")
    if pruner in ("halving", "hyperband"):
        assert table(home, "killed", "rungs.csv") == table(home, "whole", "rungs.csv")
    for one, other in zip(table(home, "killed"), table(home, "whole"), strict=True):
        assert same(one["runs"], other["runs"]), re.sub("killed", "", one["runs"])
