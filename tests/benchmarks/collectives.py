"""Messages between two processes, per optimizer step: ``python tests/benchmarks/collectives.py CONTENDER``.

Each contender trains the same model on the same data in two processes of its own. What the profiler counts is every
call into torch's process group, also those that DDP makes in C++. Prints the messages per step: those of a long
training less those of a short one, so that starts and ends do not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

SHORT, LONG = 20, 120
BATCH = 4
RANKS = 2


class Model(nn.Module):
    """Returns its loss, and the mean absolute error with ``further``."""

    def __init__(self, further: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 12))
        self.further = further

    def forward(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        error = self.layers(inputs) - targets
        further = {"absolute": error.detach().abs().mean()} if self.further else {}
        return {"loss": error.square().mean(), **further}


def data(steps: int, batches: int = 1) -> TensorDataset:
    """Make enough data for all steps in one epoch."""
    inputs = torch.randn(steps * batches * BATCH * RANKS, 12, generator=torch.Generator().manual_seed(0))
    return TensorDataset(inputs, inputs.roll(1, 1))


def ddp(steps: int, batches: int = 1) -> None:
    """A loop with DistributedDataParallel, which logs the loss of its own process."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(Model())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    samples = data(steps, batches)
    for number, batch in enumerate(DataLoader(samples, BATCH, sampler=DistributedSampler(samples)), 1):
        closes = number % batches == 0
        with contextlib.nullcontext() if closes else model.no_sync():
            loss = model(*batch)["loss"]
            (loss / batches).backward()
        loss.item()
        if closes:
            optimizer.step()
            optimizer.zero_grad()


def lightning(steps: int, **settings: Any) -> None:
    """Lightning, with ``self.log`` of the loss."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            loss = self.model(*batch)["loss"]
            self.log("train_loss", loss, **settings)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=RANKS,
            strategy="ddp",
            max_steps=steps,
            log_every_n_steps=1,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(Module(), DataLoader(data(steps), BATCH, shuffle=True))


def lightning_averaged(steps: int) -> None:
    """Lightning, with ``self.log(..., sync_dist=True)``: the mean over the processes, as darkit logs it."""
    lightning(steps, sync_dist=True)


def darkit(steps: int, *, further: bool = False, batches: int = 1) -> None:
    """darkit: the mean loss over the processes at every step, as users call it."""
    import darkit

    darkit.fit(
        Model(further),
        data(steps, batches),
        name=f"run-{steps}-{further}-{batches}",
        device="cpu",
        device_num=RANKS,
        strategy="ddp",
        optimizer="adam",
        batch_size=BATCH,
        max_step=steps,
        gradient_accumulation_steps=batches,
        log_step_interval=1,
        tensorboard=False,
    )


def darkit_further(steps: int) -> None:
    """The same, with a second value of every step to average and log."""
    darkit(steps, further=True)


def ddp_4(steps: int) -> None:
    """DDP with four accumulated batches a step, under ``no_sync``."""
    ddp(steps, 4)


def darkit_4(steps: int) -> None:
    """The same with darkit."""
    darkit(steps, batches=4)


CONTENDERS: dict[str, Callable[[int], None]] = {
    "ddp": ddp,
    "lightning": lightning,
    "lightning_averaged": lightning_averaged,
    "darkit": darkit,
    "darkit_further": darkit_further,
    "ddp_4": ddp_4,
    "darkit_4": darkit_4,
}


def messages(call: Callable[[], Any]) -> Counter[str]:
    """Count the calls into the process group while something runs, by kind."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        call()
    return Counter(str(event.name) for event in profiler.events() if event.name.startswith("c10d::"))


def per_step(contender: str, short: int = SHORT, long: int = LONG) -> dict[str, float]:
    """Return the messages of a step by kind, in one of the processes."""
    counts = [messages(lambda steps=steps: CONTENDERS[contender](steps)) for steps in (short, long)]
    kinds = {kind for count in counts for kind in count}
    return {kind: (counts[1][kind] - counts[0][kind]) / (long - short) for kind in sorted(kinds)}


def main(contender: str) -> None:
    """Start both processes, or be one, and print the first one's messages per step."""
    if "RANK" in os.environ:
        torch.set_num_threads(1)
        with contextlib.redirect_stdout(sys.stderr):
            found = per_step(contender)
        print(json.dumps(found))
        return
    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(RANKS)}
        shared |= {"TORCHELASTIC_RUN_ID": "bench", "DARWIN_KIT_HOME": home, "GROUP_RANK": "0"}
        shared |= {"LOCAL_WORLD_SIZE": str(RANKS)}
        free.close()
        ranks = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__)), contender],
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(RANKS)
        ]
        said = [rank.communicate(timeout=600)[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise SystemExit(1)
    found = json.loads(said[0].splitlines()[-1])
    print(json.dumps(found), file=sys.stderr)
    print(sum(found.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
