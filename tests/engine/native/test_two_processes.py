"""Two processes under Lightning's own loop: one writer, and an exact resume after an error in both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import darkit
from tests.children import CHECKOUT, LIMIT

SCRIPT = """
import os, sys, warnings
warnings.simplefilter("ignore")
import lightning
import darkit
from tests.engine.native.modules import Base, samples, train_loader

class Fail(lightning.Callback):
    def on_train_batch_start(self, trainer, *arguments):
        if sys.argv[2] == "fails" and trainer.global_step == 5:
            raise RuntimeError("broke")

lightning.seed_everything(0)
module = Base()
if sys.argv[1] == "recorder":
    recorder = darkit.RunRecorder(sys.argv[3], save_step_interval=2, resume="auto")
    lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, log_every_n_steps=1, use_distributed_sampler=False, callbacks=[Fail(), recorder],
    ).fit(module, train_loader())
else:
    darkit.fit(
        module, samples(), batch_size=6, name=sys.argv[3], device="cpu", device_num=2, max_epochs=3,
        save_step_interval=2, resume="auto", callbacks=[Fail()],
    )
print("weights", sum(float(value.detach().double().sum()) for value in module.parameters()), flush=True)
"""


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with both of its processes, and ends both if they hang."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, str(script), *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output)


@pytest.mark.parametrize("way", ["recorder", pytest.param("fit", marks=pytest.mark.soak)])
def test_two_processes_write_one_run_and_go_on_exactly(way: str, tmp_path: Path) -> None:
    straight = run(tmp_path, way, "works", "straight")
    assert straight.returncode == 0, straight.stdout
    failed = run(tmp_path, way, "fails", "run")
    assert failed.returncode != 0
    assert darkit.load("run").status == "crashed"
    done = run(tmp_path, way, "works", "run")
    assert done.returncode == 0, done.stdout
    weights = [line for line in (straight.stdout + done.stdout).splitlines() if line.startswith("weights")]
    assert len(weights) == 4
    assert len(set(weights)) == 1
    assert darkit.load("run").log()["step"].to_list() == list(range(1, 13))
    assert darkit.load("run").log().drop("time").equals(darkit.load("straight").log().drop("time"))
