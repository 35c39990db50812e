"""Variables that a cluster, a shell or a finished training left behind let nobody write into a run without its lock."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from darkit.runs import Run
from tests.children import LIMIT, Zygote
from tests.engine.parts import made, train, xy
from tests.faults.parts import problems
from tests.faults.several import Several

STEPS = list(range(1, 21))


@pytest.fixture
def several(zygote: Zygote, tmp_path: Path, home: Path) -> Several:
    return Several(zygote, tmp_path, home)


def names(home: Path) -> list[str]:
    """Return the names of the runs."""
    return sorted(path.name for path in (home / "base").iterdir()) if home.exists() else []


def check_finished(home: Path, *expected: str) -> None:
    """Check that these are the runs, each written by one process."""
    assert names(home) == sorted(expected)
    for name in expected:
        run = Run(home / "base" / name)
        assert (run.status, run.log()["step"].to_list(), problems(run.path)) == ("finished", STEPS, [])


def test_leftover_rank_variables_do_not_let_a_training_replace_a_finished_run(
    python: str, tmp_path: Path, home: Path
) -> None:
    run = train(made(), xy(), name="p", max_step=2)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    left = {"RANK": "1", "LOCAL_RANK": "1", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "WORLD_SIZE": "2"}
    words = "import sys; from darkit.cli.main import main; sys.exit(main())"
    settings = ["data=digits", "model=mlp", "trainer.device=cpu", "trainer.max_step=2"]
    again = subprocess.run(
        [python, "-c", words, "train", *settings, "name=p"],
        cwd=tmp_path,
        env=os.environ | left,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert again.returncode == 2
    assert "A run 'p' already exists" in again.stderr
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_trainings_on_two_devices_and_on_one_in_one_script_each_write_once(several: Several, home: Path) -> None:
    two = {"device_num": 2}
    child = several.alone(two | {"name": "two"}, two, two, two | {"name": "two"}, {"name": "one"}, two | {"name": "x"})
    assert child.wait() == 0, child.output
    said = child.output
    unnamed = [name for name in names(home) if name not in ("one", "two")]
    assert len(unnamed) == 2, "each training without a name has one of its own"
    for name in ("two", *unnamed):
        assert said.count(f"trained 0 {name} with the same variables") == 1
        assert said.count(f"trained 1 {name} with the same variables") == 1
    assert "refused 0 RunExistsError A run 'two' already exists" in said
    assert "refused 1 ProcessFailedError Process 0 of 2 failed: RunExistsError" in said
    assert said.count("trained 0 one") == 1
    assert "trained 1 one" not in said, "the second process ended quietly"
    assert "its other processes have ended" in said, "a later training on two devices has no second process"
    check_finished(home, "one", "two", *unnamed)


def test_torchrun_gives_the_numbers_and_the_processes_agree_on_names(several: Several, home: Path) -> None:
    child = several.torchrun(
        ["--standalone", "--nproc-per-node=2"], {}, {"name": "a", "device_num": 2}, {}, {"device_num": 3}, {"name": "a"}
    )
    assert child.wait() == 0, child.output
    said = child.output
    unnamed = [name for name in names(home) if name != "a"]
    assert len(unnamed) == 2
    for name in ("a", *unnamed):  # of two names of one second the one begins with the other
        assert all(len(re.findall(rf"trained {rank} {name}(?![\w-])", said)) == 1 for rank in (0, 1)), said
    assert said.count("torchrun started 2 processes, but device_num is 3: set device_num=2, or leave them out") == 2
    assert "refused 1 ProcessFailedError Process 0 of 2 failed: RunExistsError" in said
    assert said.count("step 20/20") == 3, "the first process reports"
    check_finished(home, "a", *unnamed)
    assert Run(home / "base" / "a").trainer_config["device_num"] == 2
