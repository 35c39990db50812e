"""The jobs of ``darkit train -m``: what Hydra's sweepers and launchers get from them, wherever they run."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from darkit.cli.main import main
from darkit.runs import Run, load
from tests.cli.parts import NUMBERS, done, names, refused

STEPS = "trainer.max_step=1000000"


class Walk(Sweeper):
    """A sweeper that tries the first two values of a setting, and goes on from the better one."""

    __module__ = "hydra_plugins.walk"  # Hydra takes plugins from there only
    seen: list[tuple[str, float]] = []  # noqa: RUF012

    def __init__(self, **settings: Any) -> None:
        """Take what Hydra's own sweeper is given."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        key, _, values = next(word for word in arguments if word.startswith("trainer.lr=")).partition("=")
        fixed = [word for word in arguments if not word.startswith(key)]
        for number, value in enumerate(values.split(",")):
            (job,) = self.jobs.launch([[*fixed, f"{key}={value}"]], initial_job_idx=number)
            Walk.seen.append((value, job.return_value))
        best = min((found, value) for value, found in Walk.seen if not math.isnan(found))[1]
        self.jobs.launch([[*fixed, f"{key}={float(best) / 2}"]], initial_job_idx=9)


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> str:
    """The words that choose this sweeper, as if it were installed."""
    import hydra_plugins  # type: ignore[import-untyped]

    module = ModuleType(Walk.__module__)
    module.Walk = Walk  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(hydra_plugins, "walk", module, raising=False)
    Plugins.instance().register(Walk)
    Walk.seen.clear()
    return f"hydra.sweeper._target_={Walk.__module__}.Walk"


def test_a_sweeper_of_hydras_gets_the_objective_of_each_job(walk: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*NUMBERS, "-m", walk, "trainer.lr=1e-5,1e-2", "name=walk"]
    done(capsys, *words)
    best = {name: load(name).log()["val_loss"].drop_nulls().min() for name in ("walk-0", "walk-1", "walk-9")}
    assert Walk.seen == [("1e-5", best["walk-0"]), ("1e-2", best["walk-1"])]
    assert load("walk-9").trainer_config["lr"] == 0.005, "the better one was 0.01"


def test_a_sweeper_gets_the_metric_asked_for_and_nan_for_what_failed(
    walk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*NUMBERS, "-m", walk, "trainer.lr=-1,1e-2", "sweep.objective=train_loss", "name=walk"]
    assert main(words) == 2
    assert math.isnan(Walk.seen[0][1])
    assert Walk.seen[1][1] == load("walk-1").log()["train_loss"].min()
    words[-2] = "sweep.objective=val_accuracy"
    capsys.readouterr()
    assert main([*words[:-1], "name=no"]) == 2
    said = capsys.readouterr().err
    assert "The run 'no-1' has no column 'val_accuracy', which is the objective of the sweep." in said


def test_settings_of_darkit_sweep_are_refused_in_a_training(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    said = refused(capsys, *NUMBERS, "sweep.trials=3")
    assert said.startswith("sweep.trials=3 belongs to darkit sweep: write darkit sweep instead of darkit train.")
    refused(capsys, *NUMBERS, "sweep.objective=train_loss")
    refused(capsys, *NUMBERS, "-m", "trainer.lr=1,2", "sweep.jobs=2")
    assert not home.exists()


def wait_for(found: Any, what: str) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def has_log(home: Path, name: str) -> bool:
    path = home / "base" / name / "train_log.csv"
    return path.exists() and path.read_bytes().count(b"\n") > 1


@contextmanager
def sweep(python: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [python, "-m", "darkit.cli.train", *NUMBERS[1:], "trainer.tensorboard=false", "-m", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as it:
        yield it


@pytest.mark.soak
def test_a_joblib_sweep_of_which_a_job_failed_says_so_and_stops_when_its_parent_is_told_to(
    python: str, home: Path
) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    with sweep(python, *launcher, "name=bad,a,b", "trainer.lr=-1,1e-3", STEPS) as process:
        wait_for(lambda: (home / "base").exists() and any((home / "base").glob("*/train_log.csv")), "a run")
        (first,) = names(home / "base")
        wait_for(lambda: has_log(home, first), "a row")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    run = Run(home / "base" / first)
    assert names(home / "base") == {first}, "no further job has begun"
    assert run.status == "stopped"
    assert run.details.reason == "Stopped by SIGTERM."
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == run.details.step


@pytest.mark.parametrize("launcher", ["submitit_local", pytest.param("joblib", marks=pytest.mark.soak)])
def test_a_sweep_in_other_processes_fails_when_a_job_did(launcher: str, python: str, home: Path) -> None:
    values = "trainer.lr=-1,1e-3" if launcher == "joblib" else "trainer.lr=-1"
    with sweep(python, f"hydra/launcher={launcher}", values, "name=x") as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("Error: 1 job of the sweep failed. job 0 (")
    assert last.endswith("): lr must be at least 0, not -1.0.")
    assert names(home / "base") == ({"x-1"} if launcher == "joblib" else set())
    assert not list((home / "sweeps").glob(".jobs*"))


@pytest.mark.soak
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_the_jobs_of_a_sweep_stop_when_their_parent_ends(sent: signal.Signals, launcher: str, home: Path) -> None:
    words = [f"hydra/launcher={launcher}", "name=a,b", STEPS]
    with sweep(sys.executable, *words, *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])) as process:
        wait_for(lambda: has_log(home, "a") and has_log(home, "b"), "two runs that train")
        process.send_signal(sent)
        process.communicate(timeout=120)
    wait_for(lambda: {Run(home / "base" / name).status for name in "ab"} == {"stopped"}, "both stop")
