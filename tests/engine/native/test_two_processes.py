"""Two processes under Lightning's own loop: one writer, and an exact resume after an error in one."""

from __future__ import annotations

from pathlib import Path

import pytest

import darkit
from tests.children import CHECKOUT, Zygote

SCRIPT = """
import os, sys, warnings
warnings.simplefilter("ignore")
import lightning
import darkit
from tests.engine.native.modules import Base, samples, train_loader

class Fail(lightning.Callback):
    def on_train_batch_start(self, trainer, *arguments):
        if sys.argv[2] == "fails" and trainer.global_step == 5 and trainer.global_rank == 1:
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


@pytest.mark.parametrize("way", ["recorder", pytest.param("fit", marks=pytest.mark.soak)])
def test_two_processes_write_one_run_and_go_on_exactly(way: str, zygote: Zygote, tmp_path: Path, home: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(*words: str) -> tuple[int, str]:
        child = zygote.start([str(script), way, *words], home, PYTHONPATH=str(CHECKOUT), WARM_PYTHON=zygote.python)
        return child.wait(), child.output

    code, straight = run("works", "straight")
    assert code == 0, straight
    code, failed = run("fails", "run")
    assert code != 0
    assert darkit.load("run").details.reason == "Process 1 of 2 failed: RuntimeError: broke", failed
    assert darkit.load("run").status == "crashed"
    code, done = run("works", "run")
    assert code == 0, done
    weights = [line for line in (straight + done).splitlines() if line.startswith("weights")]
    assert len(weights) == 4
    assert len(set(weights)) == 1
    assert darkit.load("run").log()["step"].to_list() == list(range(1, 13))
    assert darkit.load("run").log().drop("time").equals(darkit.load("straight").log().drop("time"))


COPIES = """
import lightning, darkit
from tests.engine.native.modules import Base, train_loader

trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp_fork", max_steps=4, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, use_distributed_sampler=False, callbacks=[darkit.RunRecorder("copied")],
)
trainer.fit(Base(), train_loader())
"""


def test_copies_of_the_process_are_refused_before_there_is_a_run(zygote: Zygote, home: Path) -> None:
    child = zygote.run(COPIES, home, PYTHONPATH=str(CHECKOUT))
    assert child.wait() != 0
    assert "Training with copies of this process" in child.output
    assert not home.exists()
