"""The same training in one process and in several, which are children of the warm process as torchrun starts them.

A case is a function of an importable module (not of a script). `on_ranks` calls it in every process and returns what
each returned; called directly, it is the oracle in one process::

    def case(name: str, ranks: int = 1) -> dict[str, Any]:
        model = Noting()
        darkit.fit(model, Numbered(24), name=name, device="cpu", device_num=ranks, batch_size=8 // ranks, ...)
        return {"weights": weights_of(model), "ids": model.ids}

    one = case("one")
    two = on_ranks(zygote, home, case, name="two", ranks=2)     # two[0]["weights"], two[1]["ids"]
    run = Run(home / "base" / "two")                            # rows and checkpoints, written by the first
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.children import CHECKOUT, LIMIT, Child, Zygote


def start_ranks(
    zygote: Zygote,
    home: Path,
    function: Callable[..., Any],
    *,
    processes: int,
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> list[Child]:
    """Start a function in several processes that form a group, with the variables of torchrun.

    Args:
        zygote: The warm process.
        home: The darkit home of the processes; what they return lies there too.
        function: A function at the top of a module that can be imported; it returns what ``torch.load`` reads.
        processes: Their number.
        environment: Further variables.
        **arguments: Passed to the function; plain values.
    """
    home.mkdir(parents=True, exist_ok=True)
    code = (
        f"from {function.__module__} import {function.__name__} as function\n"
        f"from tests.engine.ranks import call\n"
        f"call(function, {arguments!r}, {str(home)!r})\n"
    )
    shared = {
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "ranks",
        **(environment or {}),
    }
    return [zygote.run(code, home, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(processes)]


def on_ranks(
    zygote: Zygote, home: Path, function: Callable[..., Any], *, ranks: int = 2, **arguments: Any
) -> list[Any]:
    """Call ``function(ranks=ranks, **arguments)`` in as many processes; return what each returned, by rank.

    When one fails, the others are killed and its output is the assertion's message. Arguments are as for
    `start_ranks`.
    """
    children = start_ranks(zygote, home, function, processes=ranks, ranks=ranks, **arguments)
    codes = end_of(children)
    said = "\n".join(f"--- rank {rank}:\n{child.output}" for rank, child in enumerate(children))
    assert codes == [0] * ranks, f"exit codes {codes}\n{said}"
    return [torch.load(_place(home, rank), weights_only=True) for rank in range(ranks)]


def end_of(children: Sequence[Child], limit: float = LIMIT) -> list[int]:
    """Wait for all processes and return their exit codes; kill all that are left when one fails or time is over."""
    deadline = time.monotonic() + limit
    left, codes = dict(enumerate(children)), dict[int, int]()
    while left:
        connections = [child.connection for child in left.values()]
        ready = select.select(connections, [], [], max(0.0, deadline - time.monotonic()))[0]
        for rank, child in list(left.items()):
            if child.connection in ready:
                codes[rank] = left.pop(rank).wait()
        if not ready or any(codes.values()):
            for child in left.values():
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            deadline = time.monotonic() + limit
    return [codes[rank] for rank in range(len(children))]


def call(function: Callable[..., Any], arguments: dict[str, Any], home: str) -> None:
    """Call a case in one of several processes and keep what it returns."""
    torch.set_num_threads(1)
    torch.save(function(**arguments), _place(Path(home), int(os.environ["RANK"])))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first holds the store of the group
        torch.distributed.destroy_process_group()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _place(home: Path, rank: int) -> Path:
    return home / f"returned-{rank}.pt"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Copy the weights and buffers of a model."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class Numbered(Dataset[dict[str, Tensor]]):
    """Samples with their number as ``id``; the batch is a dict."""

    def __init__(self, length: int = 16, width: int = 4) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(length, width, generator=generator)
        self.y = self.x.sum(1, keepdim=True) + 0.1 * torch.randn(length, 1, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "y": self.y[index], "id": torch.tensor(index)}


class Noting(nn.Module):
    """A regression that notes, per batch that it trains on, the numbers of the samples."""

    def __init__(self, width: int = 4, hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.ids: list[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        if self.training:
            self.ids.append(batch["id"].tolist())
        return nn.functional.mse_loss(self.layers(batch["x"]), batch["y"])
