"""What saving costs each of two processes: ``python fsdp.py ddp|fsdp`` prints one JSON line.

``memory`` is what the process with the most memory takes more while it saves, in MB (10^6 bytes), beside the state that
it holds anyway; ``stall`` is how long its training waits, in ms; ``durable`` the seconds until all is on the disk;
``state`` the MB of weights and optimizer of all processes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import darkit
from darkit.engine.callbacks import StepCheckpoint

WIDTH, LAYERS = 1536, 8
STEPS = 3  # the first save allocates the buffers, which the others use


def memory(name: str) -> float:
    """Return a number of this process's memory in MB."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith(name))


def main(strategy: str) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if not rank:
        os.environ["DARWIN_KIT_HOME"] = tempfile.mkdtemp()
    home = Path(os.environ["DARWIN_KIT_HOME"])
    rows: list[dict[str, float]] = []
    original = StepCheckpoint.save

    def save(self: StepCheckpoint, *arguments: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        before, started = memory("VmRSS"), time.monotonic()
        original(self, *arguments)
        stalled = time.monotonic() - started
        if self._writer is not None:
            self._writer.wait()
        durable = time.monotonic() - started
        rows.append({"memory": memory("VmHWM") - before, "stall": 1e3 * stalled, "durable": durable})

    StepCheckpoint.save = save  # type: ignore[method-assign]
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])
    state = 3 * sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    data = torch.randn(8 * STEPS, WIDTH, generator=torch.Generator().manual_seed(0))  # the same in each process
    darkit.fit(
        model,
        (data, data),
        loss=nn.functional.mse_loss,
        name="saved",
        device="cpu",
        device_num=2,
        strategy=strategy,
        batch_size=4,
        max_step=STEPS,
        save_step_interval=1,
        keep_last=1,
        tensorboard=False,
    )
    (home / f"{rank}.json").write_text(json.dumps([rows[0]["memory"], rows[-1]["stall"], rows[-1]["durable"]]))
    torch.distributed.barrier()
    if not rank:
        found = [json.loads((home / f"{one}.json").read_text()) for one in (0, 1)]
        worst = [max(values) for values in zip(*found, strict=True)]
        print(json.dumps(dict(zip(("memory", "stall", "durable"), worst, strict=True)) | {"state": state}))


if __name__ == "__main__":
    main(sys.argv[1])
