"""Every way to start several processes ends in one run with one name, written once."""

from __future__ import annotations

import json
import socket
import textwrap
from pathlib import Path

import pytest

from darkit.runs import Run
from tests.children import CHECKOUT, Zygote
from tests.faults.parts import problems
from tests.faults.several import Several

STEPS = list(range(1, 21))


@pytest.fixture
def several(zygote: Zygote, tmp_path: Path, home: Path) -> Several:
    return Several(zygote, tmp_path, home)


def only_run(home: Path) -> Run:
    """Return the only run, after checking that it is whole and was written once."""
    (path,) = (home / "base").iterdir()
    run = Run(path)
    assert (run.status, run.log()["step"].to_list(), problems(run.path)) == ("finished", STEPS, [])
    return run


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("per_node", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_two_nodes_of_torchrun_train_one_run(several: Several, home: Path, per_node: int) -> None:
    options = ["--nnodes=2", f"--nproc-per-node={per_node}", f"--master-port={free_port()}", "--master-addr=127.0.0.1"]
    nodes = [several.torchrun([*options, f"--node-rank={rank}"], {}) for rank in (0, 1)]
    assert [node.wait() for node in nodes] == [0, 0], "\n".join(node.output for node in nodes)
    run = only_run(home)
    assert (run.trainer_config["device_num"], run.trainer_config["num_nodes"]) == (per_node, 2)
    assert "step 20/20" in nodes[0].output
    assert "step 20/20" not in nodes[1].output


def test_tasks_of_srun_train_one_run_without_a_name_also_after_a_requeue(several: Several, home: Path) -> None:
    tasks = several.srun({"resume": "auto"}, FAULT="kill:1:7")
    assert [task.wait() for task in tasks] == [0, -9], tasks[0].output
    (path,) = (home / "base").iterdir()
    assert path.name.startswith("slurm-1"), "the job's number, which a requeue keeps"
    assert Run(path).details.reason.startswith("Process 1 of 2 was killed or ended without an error")
    again = several.srun({"resume": "auto"}, SLURM_RESTART_COUNT="1", SLURM_NTASKS_PER_NODE="2", FAULT="kill:1:7")
    assert [task.wait() for task in again] == [0, 0], again[0].output
    assert "Resuming run" in again[0].output
    assert only_run(home).path == path


def test_a_task_without_its_partner_says_so(several: Several, home: Path) -> None:
    (task, *_) = several.srun({"name": "alone", "device_num": 2}, tasks=1, SLURM_STEP_NUM_TASKS="2", PATIENCE="1")
    assert task.wait() == 0
    assert "refused 0 ProcessFailedError Process 1 of 2 did not come within 1 s" in task.output
    assert not home.exists()


SUBMITTED = """
import sys, submitit
sys.path.insert(0, {folder!r})
import several

executor = submitit.LocalExecutor({folder!r} + "/jobs", python={python!r})
executor.update_parameters(timeout_min=2, tasks_per_node=2)
job = executor.submit(several.train, {{"max_step": 20}})
print(sorted(run.name for run in job.results()))
"""


def test_submitted_functions_train_together(zygote: Zygote, several: Several, home: Path, tmp_path: Path) -> None:
    code = textwrap.dedent(SUBMITTED).format(folder=str(tmp_path), python=zygote.python)
    path = f"{tmp_path}:{CHECKOUT}"
    child = zygote.run(code, home, PYTHONPATH=path)  # the controller is a real process, whose id is the job's
    assert child.wait() == 0, child.output
    run = only_run(home)
    assert f"['{run.name}', '{run.name}']" in child.output


LOOP = """
import os, signal, threading, time, torch, darkit
with darkit.start_run(max_step=20, tensorboard=False) as run:
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo")
    for step in range(1, 21):
        if step == int(os.environ.get("FAIL", 0)):
            if rank == 1:
                raise ValueError("this process fails")
            time.sleep(60 if os.environ.get("BUSY") else 0)  # the launcher ends it meanwhile
        if step == int(os.environ.get("SIGNAL", 0)):
            if rank == 0:
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            if rank == 1 or not os.environ.get("BLOCKED"):
                time.sleep(60)
        value = torch.ones(1)
        torch.distributed.all_reduce(value)
        run.log({"loss": float(value)}, step=step)
    print("looped", rank, run.name, flush=True)
"""


def test_hand_written_loops_under_torchrun_agree_on_a_name(several: Several, home: Path) -> None:
    several.script.write_text(LOOP)
    child = several.torchrun(["--standalone", "--nproc-per-node=2"])
    assert child.wait() == 0, child.output
    run = only_run(home)
    assert all(f"looped {rank} {run.name}" in child.output for rank in (0, 1))


@pytest.mark.parametrize("busy", ["", "1"])
def test_a_hand_written_loop_says_which_process_failed_also_where_the_launcher_ends_it(
    several: Several, home: Path, busy: str
) -> None:
    several.script.write_text(LOOP)
    failing = several.torchrun(["--standalone", "--nproc-per-node=2"], FAIL="11", BUSY=busy)
    assert failing.wait() != 0
    (path,) = (home / "base").iterdir()
    failed = Run(path).details
    assert (failed.state, failed.reason) == ("crashed", "Process 1 of 2 failed: ValueError: this process fails")


@pytest.mark.parametrize("blocked", ["", "1"])
def test_a_hand_written_loop_that_gets_a_sigterm_is_stopped_also_in_a_collective(
    several: Several, home: Path, blocked: str
) -> None:
    several.script.write_text(LOOP)
    child = several.torchrun(["--standalone", "--nproc-per-node=2"], SIGNAL="11", BLOCKED=blocked)
    assert child.wait() != 0
    assert "exitcode  : 143" in child.output
    (path,) = (home / "base").iterdir()
    run = Run(path)
    assert (run.details.state, run.details.reason) == ("stopped", "Stopped by SIGTERM.")
    assert run.log()["step"].to_list() == STEPS[:10]


def test_the_command_line_under_torchrun_prints_once(several: Several, zygote: Zygote, home: Path) -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "darkit.train"]
    settings = ["data=digits", "model=mlp", "trainer.device=cpu", "trainer.max_step=4", "trainer.tensorboard=false"]
    child = zygote.start([*words, *settings], home, **several.variables)
    assert child.wait() == 0, child.output
    (path,) = (home / "base").iterdir()
    assert child.output.count(f"{path.name}: finished at step 4 of 4") == 1
    assert child.output.count("run directory") == 1
    again = zygote.start([*words, *settings, f"name={path.name}"], home, **several.variables)
    assert again.wait() != 0
    said = [line for line in again.output.splitlines() if line.startswith("Error: A run")]
    assert len(said) == 1, again.output
    assert f"'{path.name}' already exists" in said[0]
    assert json.loads((path / "trainer_config.json").read_text())["device_num"] == 2
    lasting = zygote.start([*words, *settings, "resume=auto"], home, **several.variables)
    assert lasting.wait() == 0, lasting.output
    assert lasting.output.count("run directory") == 1
    assert any(path.name.startswith("torchrun-") for path in (home / "base").iterdir())
