"""Trainings of several warm processes, started as a person, torchrun or SLURM starts them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.children import CHECKOUT, Child, Zygote

SCRIPT = """
import faulthandler, functools, json, os, signal, sys, time
import lightning, torch, darkit
from torch import nn

faulthandler.dump_traceback_later(100, exit=True)
torch.set_num_threads(1)
if "PATIENCE" in os.environ:
    import darkit.engine.together
    darkit.engine.together.PATIENCE = float(os.environ["PATIENCE"])
RANK = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))

def kill_in_save(folder, *arguments):
    if any(".tmp-" in name and "ckpt" in name for name in os.listdir(folder)):
        os.kill(os.getpid(), signal.SIGKILL)

class Fault(lightning.Callback):
    # what happens in one process after a step: FAULT is kind:rank:step
    def on_train_batch_end(self, trainer, *rest):
        kind, rank, step = (os.environ.get("FAULT") or "none:0:0").split(":")
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", os.environ.get("SLURM_RESTART_COUNT", "0")) != "0"
        if RANK != int(rank) or trainer.global_step != int(step) or restarted:
            return
        if kind == "raise":
            raise ValueError("this process fails")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            os._exit(3)
        if kind == "nan":
            with torch.no_grad():
                for parameter in trainer.lightning_module.parameters():
                    parameter.fill_(float("nan"))
        if kind == "save":
            os.fsync = functools.partial(kill_in_save, trainer.default_root_dir)
        if kind == "hang":
            while True:
                time.sleep(1)

def train(settings):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    data = (torch.randn(64, 4, generator=generator), torch.randn(64, 1, generator=generator))
    given = dict(loss=nn.functional.mse_loss, device="cpu", batch_size=4, max_step=20, save_step_interval=5,
                 log_step_interval=1, tensorboard=False, callbacks=[Fault()]) | settings
    return darkit.fit(model, data, **given)

def variables():
    return {key: value for key, value in os.environ.items() if "RANK" in key or "MASTER" in key or "DARKIT" in key}

def main():
    if os.environ.get("FAULT", "").startswith("late") and RANK:
        print("waits", flush=True)
        time.sleep(60)
    for settings in json.loads(sys.argv[1]):
        before = variables()
        try:
            run = train(settings)
        except darkit.errors.DarkitError as error:
            print("refused", RANK, type(error).__name__, error, flush=True)
            continue
        except ValueError:
            if not os.environ.get("STAY"):
                raise
            time.sleep(60)
        print("trained", RANK, run.name, "with the same variables" if before == variables() else "", flush=True)

if __name__ == "__main__":
    main()
"""


class Several:
    """Starts trainings of several processes in a home.

    Args:
        zygote: What starts processes.
        folder: A folder for the script.
        home: The darkit home.
    """

    def __init__(self, zygote: Zygote, folder: Path, home: Path) -> None:
        self.zygote, self.home = zygote, home
        self.script = folder / "several.py"
        self.script.write_text(SCRIPT)
        self.variables = {"PYTHONPATH": str(CHECKOUT), "WARM_PYTHON": zygote.python, "PYTHON_EXEC": zygote.python}

    def alone(self, *fits: dict[str, Any], **variables: str) -> Child:
        """Start one process, which starts the others where ``device_num`` says so."""
        words = [str(self.script), json.dumps(list(fits))]
        return self.zygote.start(words, self.home, **self.variables | variables)

    def srun(self, *fits: dict[str, Any], tasks: int = 2, **variables: str) -> list[Child]:
        """Start the tasks of a job step as srun does."""
        step = {"SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000), "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}
        step |= {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": str(tasks)}
        words = [str(self.script), json.dumps(list(fits))]
        return [
            self.zygote.start(
                words,
                self.home,
                **self.variables | step | variables | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)},
            )
            for task in range(tasks)
        ]

    def torchrun(self, options: list[str], *fits: dict[str, Any], **variables: str) -> Child:
        """Start torchrun."""
        words = ["-m", "torch.distributed.run", *options, str(self.script), json.dumps(list(fits))]
        return self.zygote.start(words, self.home, **self.variables | variables)
