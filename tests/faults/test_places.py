"""Variables that a cluster, a shell or a finished training left behind let nobody write into a run without its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from darkit.runs import Run
from tests.children import CHECKOUT, LIMIT
from tests.engine.parts import made, train, xy
from tests.faults.parts import problems

SCRIPT = """
import os, sys, torch, darkit
from torch import nn

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
data = (torch.randn(16, 4, generator=generator), torch.randn(16, 1, generator=generator))
for word in sys.argv[1:]:
    name, devices = word.split(":")
    before = {key: value for key, value in os.environ.items() if "RANK" in key or "MASTER" in key or "DARKIT" in key}
    run = darkit.fit(nn.Sequential(nn.Linear(4, 1)), data, loss=nn.functional.mse_loss, name=name, device="cpu",
                     device_num=int(devices), batch_size=4, max_step=4, tensorboard=False)
    after = {key: value for key, value in os.environ.items() if "RANK" in key or "MASTER" in key or "DARKIT" in key}
    print(f"trained {name}, the same variables: {before == after}", flush=True)
"""
STEPS = [1, 2, 3, 4]


def script(folder: Path, home: Path, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT)
    variables = {"DARWIN_KIT_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(path), *words]
    return subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, timeout=LIMIT, check=False
    )


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


def test_torchrun_with_two_processes_for_one_device_is_refused_before_anything(tmp_path: Path, home: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0")
    done = script(tmp_path, home, "x:1", launcher=launcher)
    assert done.returncode != 0
    assert "torchrun started 2 processes, but device_num is 1: set device_num=2" in done.stderr
    assert not home.exists()


def test_trainings_on_two_devices_and_on_one_in_one_script_each_write_once(tmp_path: Path, home: Path) -> None:
    done = script(tmp_path, home, "two:2", "again:2", "one:1", "late:2")
    assert "its other processes have ended" in done.stderr, "a third training on two devices has no second process"
    assert done.stdout.count("trained two, the same variables: True") == 2
    assert done.stdout.count("trained again, the same variables: True") == 2
    assert done.stdout.count("trained one, the same variables: True") == 1, "the second process ended quietly"
    assert sorted(path.name for path in (home / "base").iterdir()) == ["again", "one", "two"]
    for name in ("two", "again", "one"):
        run = Run(home / "base" / name)
        assert (run.status, run.log()["step"].to_list(), problems(run.path)) == ("finished", STEPS, [])
