"""However the process of a loop ends, its run says so: signals, errors, exits, forks and several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import darkit
from darkit.engine.stop import StopTraining
from tests.children import Child, Zygote, torchrun

LOOP = """
import darkit, os, sys, time, torch
model = torch.nn.Linear(2, 1)
run = darkit.start_run("mine", max_step=1_000_000, tensorboard=False)
with run:
    for step in range(1, 1_000_001):
        run.log({"loss": 1.0 / step}, step=step)
        if run.should_stop or step % 50 == 0:
            run.save(model=model, step=step)
        time.sleep(0.001)
print("after the block", flush=True)
"""


def wait_until(condition: Callable[[], Any], child: Child | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, child and child.output
        time.sleep(0.01)


def steps(home: Path, name: str = "mine") -> list[int]:
    log = home / "base" / name / "train_log.csv"
    lines = log.read_text().splitlines()[1:] if log.exists() else []
    return [int(line.partition(",")[0]) for line in lines]


def start(zygote: Zygote, home: Path, code: str = LOOP, rows: int = 5, **environment: str) -> Child:
    child = zygote.run(textwrap.dedent(code), home, **environment)
    wait_until(lambda: len(steps(home)) >= rows, child)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_stops_the_loop_after_a_saved_step_and_ends_the_process(
    number: signal.Signals, zygote: Zygote, home: Path
) -> None:
    child = start(zygote, home)
    child.send(number)
    assert child.wait() == 128 + number, child.output
    found = darkit.load("mine")
    details = found.details
    assert (details.state, details.reason, details.traceback) == ("stopped", f"Stopped by {number.name}.", "")
    assert steps(home) == list(range(1, details.step + 1))
    assert found.latest_checkpoint().step == details.step  # type: ignore[union-attr]
    assert "after the block" not in child.output
    assert f"{number.name}: stopping after this step" in child.output
    assert "saving" not in child.output


def test_a_request_to_stop_ends_the_block_and_the_program_continues(zygote: Zygote, home: Path) -> None:
    child = start(zygote, home)
    darkit.runs.requests.request_stop(darkit.load("mine").path, "a test")  # type: ignore[attr-defined]
    assert child.wait() == 0, child.output
    assert (darkit.load("mine").status, darkit.load("mine").details.reason) == ("stopped", "Stopped by a test.")
    assert "after the block" in child.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_at_once_and_leaves_nothing_behind(
    number: signal.Signals, zygote: Zygote, home: Path
) -> None:
    code = """
        import darkit, time
        with darkit.start_run("mine"):
            print("ready", flush=True)
            time.sleep(60)
    """
    child = zygote.run(textwrap.dedent(code), home)
    wait_until(lambda: "ready" in child.output, child)
    child.send(number)
    assert child.wait() == (-number if number == signal.SIGINT else 128 + number)
    assert ("KeyboardInterrupt" in child.output) == (number == signal.SIGINT)
    assert darkit.runs() == []


@pytest.mark.parametrize(
    ("ending", "code", "state", "reason"),
    [
        ("pass", 0, "finished", "The program ended at step 3 of 10 without finish()."),
        ("run.finish()", 0, "finished", ""),
        ("run.finish(); raise RuntimeError('after')", 1, "finished", ""),
        ("with run: raise KeyboardInterrupt", -2, "stopped", "Interrupted from the keyboard."),
        ("with run: raise RuntimeError('the loop broke')", 1, "crashed", "RuntimeError: the loop broke"),
        ("os._exit(3)", 3, "crashed", "The process ended without a final status"),
        ("os.kill(os.getpid(), 9)", -9, "crashed", "The process ended without a final status"),
        ("os.kill(os.getpid(), 15)", -15, "crashed", "The process ended without a final status"),
        ("with run: sys.exit(3)", 3, "crashed", "SystemExit: 3"),
        ("with run: sys.exit('broken')", 1, "crashed", "SystemExit: broken"),
        ("with run: sys.exit(0)", 0, "finished", ""),
        ("with run: sys.exit()", 0, "finished", ""),
        ("with run: raise MemoryError('of the host')", 1, "crashed", "Out of memory: MemoryError: of the host"),
        ("""
try:
    with run: raise ValueError("caught")
except ValueError: pass""", 0, "crashed", "ValueError: caught"),
    ],
)  # fmt: skip
def test_the_end_of_a_program_is_the_end_of_its_run(
    ending: str, code: int, state: str, reason: str, zygote: Zygote, home: Path
) -> None:
    program = f"""
import darkit, os, sys, time
run = darkit.start_run("mine", max_step=10, tensorboard=False)
for step in range(1, 4):
    run.log({{"loss": 1.0}}, step=step)
run.save(step=3)
run.log({{"loss": 2.0}}, step=3)
run._session.writer.wait()
{ending}
"""
    child = zygote.run(program, home)
    assert child.wait() == code, child.output
    details = darkit.load("mine").details
    assert (details.state, details.step) == (state, 3)
    assert details.reason.startswith(reason)
    assert bool(reason) == bool(details.reason)
    assert darkit.load("mine").latest_checkpoint().step == 3  # type: ignore[union-attr]
    if code not in (3, -9, -15) or "sys.exit" in ending:
        assert steps(home) == [1, 2, 3]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("raised", "state", "reason"),
    [
        ("RuntimeError('the loop broke')", "crashed", "RuntimeError: the loop broke"),
        ("KeyboardInterrupt", "stopped", "Interrupted from the keyboard."),
    ],
)
def test_an_uncaught_exception_ends_a_run_that_no_block_ends(raised: str, state: str, reason: str) -> None:
    code = f"""
        import darkit
        run = darkit.start_run("mine")
        run.log({{"loss": 1.0}})
        raise {raised}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stderr.count("Traceback") == 1
    details = darkit.load("mine").details
    assert (details.state, details.reason) == (state, reason)
    assert ("in <module>" in details.traceback) == (state == "crashed")


def test_a_prompt_survives_errors_and_interruptions(home: Path) -> None:
    lines = """
        import darkit, signal, os
        run = darkit.start_run("mine", tensorboard=False)
        run.log({"loss": 1.0})
        1 / 0
        run.log({"loss": 2.0})
        os.kill(os.getpid(), signal.SIGINT)
        run.log({"loss": 3.0})
        raise SystemError("of no meaning")
        print("status", darkit.load("mine").status, run.log({"loss": 4.0}))
    """
    done = subprocess.run(
        [sys.executable, "-i", "-c", ""], input=textwrap.dedent(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "status running None" in done.stdout
    assert (darkit.load("mine").status, steps(home)) == ("finished", [1, 2, 3, 4])


def test_in_a_notebook_a_signal_ends_the_block_and_not_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)  # as IPython's shell does
    handler = signal.getsignal(signal.SIGINT)
    with darkit.start_run("mine") as run:
        for step in range(1, 100):
            if step == 4:
                os.kill(os.getpid(), signal.SIGINT)
            run.log({"loss": 1.0}, step=step)
    assert (darkit.load("mine").status, darkit.load("mine").details.step) == ("stopped", 4)
    assert signal.getsignal(signal.SIGINT) == handler


def test_signals_act_as_usual_outside_of_a_block() -> None:
    run = darkit.start_run("mine")
    handler = signal.getsignal(signal.SIGINT)
    run.log({"loss": 1.0})
    assert signal.getsignal(signal.SIGINT) == handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    run.log({"loss": 2.0})
    run.finish()
    assert darkit.load("mine").status == "finished"


FORKS = """
import darkit, os, sys, time, torch
if __name__ == "__main__":
    run = darkit.start_run("mine", tensorboard=False)
    with run:
        run.log({"loss": 1.0}, step=1)
        child = os.fork()
        if not child:
            run.log({"loss": 9.0}, step=2)
            run.save(step=2)
            assert not run.should_stop
            how = sys.argv[1]
            if how == "error": raise RuntimeError("of the child")
            if how == "finish": run.finish()
            if how == "exit": sys.exit(0)
        if child:
            os.waitpid(child, 0)
            run.log({"loss": 2.0}, step=2)
            log = lambda batch: run.log({"w": 1.0}) or batch
            print(list(torch.utils.data.DataLoader(range(4), num_workers=2, collate_fn=log)))
"""


@pytest.mark.parametrize("how", ["error", "finish", "exit", "fall"])
def test_a_forked_child_writes_nothing_and_ends_nothing(how: str, zygote: Zygote, home: Path) -> None:
    child = zygote.start(["-c", FORKS, how], home)
    assert child.wait() == 0, child.output
    run = darkit.load("mine")
    assert run.status == "finished"
    assert run.log()["loss"].to_list() == [1.0, 2.0]
    assert run.checkpoints() == []
    assert "w" not in run.log().columns


def test_a_child_of_a_pool_ends_when_it_is_terminated(zygote: Zygote, home: Path) -> None:
    code = """
        import darkit, multiprocessing, time
        with darkit.start_run("mine") as run:
            run.log({"loss": 1.0})
            pool = multiprocessing.get_context("fork").Pool(2)
            pool.apply_async(time.sleep, (60,))
            pool.terminate()
            pool.join()
    """
    child = zygote.run(textwrap.dedent(code), home)
    assert child.wait() == 0, child.output
    assert darkit.load("mine").status == "finished"


RANKS = """
import darkit, os, sys, torch
import torch.distributed as dist
if sys.argv[1] == "early":
    run = darkit.start_run("mine", resume="auto", tensorboard=False)
dist.init_process_group("gloo")
if sys.argv[1] == "late":
    run = darkit.start_run("mine", resume="auto", tensorboard=False)
rank = dist.get_rank()
torch.manual_seed(rank)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with run:
    start = run.restore(model=model, optimizer=optimizer)
    for step in range(start + 1, start + 6):
        loss = model(torch.randn(2, 1)).square().mean()
        loss.backward()
        optimizer.step()
        run.log({"loss": loss, "rank": rank}, step=step)
        dist.barrier()
        if rank == 0 and step == start + 3 and sys.argv[2] == "stop":
            run._session.guard.request.ask("Stopped by a test.")
        if run.should_stop:
            break
    run.save(model=model, optimizer=optimizer)
print("process", rank, "at", run.step, model.module.weight.item(), flush=True)
dist.barrier()
os._exit(0)  # torch's own threads end some processes with SIGABRT
"""


@pytest.mark.parametrize("when", [pytest.param("early", marks=pytest.mark.soak), "late"])
def test_of_several_processes_only_the_first_writes_and_all_resume_and_stop_at_the_same_step(
    when: str, zygote: Zygote, home: Path, tmp_path: Path
) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    said = torchrun(zygote, home, str(script), when, "run")
    run = darkit.load("mine")
    assert (run.status, run.details.step) == ("finished", 5)
    assert run.log()["rank"].to_list() == [0] * 5
    assert {" ".join(line.split()[2:]) for line in said.splitlines() if line.startswith("process")}.__len__() == 1
    said = torchrun(zygote, home, str(script), when, "stop")
    assert "process 0 at 8" in said
    assert "process 1 at 8" in said
    assert (darkit.load("mine").status, darkit.load("mine").details.step) == ("stopped", 8)


def test_several_processes_need_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(darkit.errors.ConfigError, match="Several processes need a name="):
        darkit.start_run()
    assert darkit.runs() == []


def test_variables_of_a_shell_alone_are_not_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0})
    assert darkit.load("mine").log().height == 1


def test_no_except_exception_of_a_loop_holds_up_a_stop() -> None:
    assert not issubclass(StopTraining, Exception)
