"""What a checkpoint of 600 MB costs: ``python tests/benchmarks/checkpoints.py CONTENDER [THREADS] [quick]``.

Each contender is a process of its own, which trains with that many compute threads; ``quick`` is a state of 60 MB.
Prints numbers as JSON.

The contenders of `SAVING` train a model of 50 million parameters with Adam and save now and then; the forward pass
notes the time. ``stall`` is how much longer a step with a save takes than the median of the others (ms, median from the
second save on), ``first`` the same of the first save, ``durable`` the time from the save to the file being complete on
the disk (s, median), ``memory`` by how much the first save and all after it raised the peak of the process (MB), and
``beyond`` how much of that exceeds 1.05 of the state (MB).

``never`` and ``every_50`` train with steps of about 40 ms and a state of 600 MB, most of it a table of which a step
reads a few rows, and print steps per second. ``torch_load`` and ``resume`` print seconds: of `torch.load`, and of a
resumed ``fit`` to its first step less that of a new one. ``disk_all`` and ``disk_last`` print the bytes of ten
checkpoints, in those of the weights.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

QUICK = "quick" in sys.argv
LAYERS, SIZE = 12, 645 if QUICK else 2041  # 5 or 50 million parameters
WEIGHTS = LAYERS * (SIZE + 1) * SIZE * 4  # bytes
EVERY, SAVES = 4, 4
STEPS = EVERY * SAVES + 2
RATE_EVERY, RATE_SAVES = 50, 2
times: list[float] = []
walls: list[float] = []
peaks: list[int] = []


class Model(nn.Module):
    """Wide layers; few samples, so that a step is short against its state.

    Before the last but one step before a save it waits until the last save is on the disk, however slow that is: so
    neither the save nor the step that it is compared with has anything beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(SIZE, SIZE) for _ in range(LAYERS))

    def forward(self, inputs: Tensor) -> Tensor:
        while len(times) % EVERY == EVERY - 2 and any(saving()):
            time.sleep(0.01)
        times.append(time.perf_counter())
        walls.append(time.time())
        peaks.append(peak())
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs))
        return inputs.square().mean()


def saving() -> Iterator[Path]:
    """Yield the files that a save is writing."""
    return Path(os.environ["DARWIN_KIT_HOME"], "base", "run").glob(".*.tmp-*")


def data() -> list[tuple[Tensor]]:
    """Make a sample per step."""
    return [(torch.randn(SIZE),) for _ in range(STEPS)]


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer of all contenders."""
    return torch.optim.Adam(parameters, fused=True)


def loop(save: Callable[[nn.Module, torch.optim.Optimizer, int], None]) -> None:
    """Train by hand and call ``save`` after now and then."""
    model = Model()
    optimizer = adam(model.parameters())
    for step, (sample,) in enumerate(data(), 1):
        optimizer.zero_grad()
        model(sample[None]).backward()
        optimizer.step()
        if step % EVERY == 0:
            save(model, optimizer, step)


def bare_clone(folder: Path) -> None:
    """Clone the state and drop the clone: no bytes are written."""

    def save(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        [value.detach().clone() for value in model.state_dict().values()]
        states = optimizer.state_dict()["state"].values()
        [value.clone() for state in states for value in state.values() if isinstance(value, Tensor)]

    loop(save)


def plain_save(folder: Path) -> None:
    """``torch.save`` and ``fsync`` in the loop."""

    def save(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        with (folder / f"{step}.pth").open("wb") as file:
            torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())

    loop(save)


def lightning_module() -> object:
    """Make the model as a LightningModule."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            loss: Tensor = self.model(batch[0])
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adam(self.parameters())

    return Module()


def lightning_fit(folder: Path, plugins: list[object]) -> None:
    """Train with Lightning's ModelCheckpoint."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=False,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=EVERY, save_top_k=-1)],
        plugins=plugins,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(lightning_module(), DataLoader(data(), batch_size=1))


def lightning_stock(folder: Path) -> None:
    """Lightning as it comes."""
    lightning_fit(folder, [])


def lightning_async(folder: Path) -> None:
    """Lightning with its AsyncCheckpointIO."""
    from lightning.pytorch.plugins.io import AsyncCheckpointIO

    lightning_fit(folder, [AsyncCheckpointIO()])


def fit(model: nn.Module, samples: list[tuple[Tensor]], **settings: Any) -> None:
    """Train with darkit as users do, with everything on but TensorBoard."""
    import darkit

    given = {"device": "cpu", "optimizer": adam, "batch_size": 1, "name": "run", "tensorboard": False} | settings
    darkit.fit(model, samples, **given)


def darkit_run(folder: Path) -> None:
    """darkit."""
    fit(Model(), data(), max_step=STEPS, save_step_interval=EVERY)


SAVING: dict[str, Callable[[Path], None]] = {
    "bare_clone": bare_clone,
    "plain_save": plain_save,
    "lightning_stock": lightning_stock,
    "lightning_async": lightning_async,
    "darkit": darkit_run,
}


def stall(contender: str, folder: Path) -> dict[str, float]:
    """Train and save, and return what the saves cost."""
    SAVING[contender](folder)
    written = sorted(folder.rglob("*.pth")) + sorted(folder.rglob("*.ckpt"))
    durable = [_seconds_until_durable(path) for path in written]
    if contender == "plain_save":  # it goes on once all is synchronised, which no time of the file tells
        durable = [after - before for before, after in itertools.pairwise(times)][EVERY - 1 :: EVERY]
    grown = peak() - peaks[EVERY - 1]
    stalls = [(value - _usual()) * 1e3 for index, value in enumerate(_steps(), 1) if index % EVERY == 0]
    return {
        "stall": statistics.median(stalls[1:]),
        "first": stalls[0],
        "durable": statistics.median(durable) if durable else 0.0,
        "memory": grown / 1e6,
        "beyond": (grown - 1.05 * 3 * WEIGHTS) / 1e6,
        "step": _usual() * 1e3,
    }


class Table(nn.Module):
    """A large table of which each step reads a few rows, and layers that compute for about 40 ms with two threads."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(15_000 if QUICK else 150_000, 1000).requires_grad_(False)
        self.layers = nn.ModuleList(nn.Linear(1000, 1000) for _ in range(4))

    def forward(self, inputs: Tensor) -> Tensor:
        times.append(time.perf_counter())
        values = self.table(inputs.long().reshape(-1) % 1000)
        for layer in self.layers:
            values = torch.tanh(layer(values))
        return values.square().mean()


def rate(contender: str, folder: Path) -> float:
    """Train with or without saves, and return steps per second after the first save, which allocates the copy."""
    steps = RATE_EVERY * (1 + RATE_SAVES)
    samples = [(torch.arange(200.0),)] * (steps + 1)
    every = RATE_EVERY if contender == "every_50" else 0
    fit(Table(), samples, max_step=steps + 1, save_step_interval=every, optimizer="sgd")
    return RATE_EVERY * RATE_SAVES / (times[-1] - times[RATE_EVERY])


def resume(contender: str, folder: Path) -> float:
    """Return the seconds of `torch.load`, or what a resume takes more than a new run until its first forward pass."""
    samples = data()[:4]
    fit(Model(), samples, max_step=2)
    model = Model()
    started = time.perf_counter()
    fit(model, samples, max_step=1, name="other")
    fresh = times[-1] - started
    os.sync()
    path = folder / "base" / "run" / "iter-2-ckpt.pth"
    path.read_bytes()  # both read from the page cache
    model = Model()
    began = time.perf_counter()
    if contender == "torch_load":
        torch.load(path, weights_only=True)
        return time.perf_counter() - began
    fit(model, samples, max_step=3, resume=True)
    return times[-1] - began - fresh


def disk(contender: str, folder: Path) -> float:
    """Return the bytes of ten checkpoints in multiples of the weights."""
    settings: dict[str, Any] = {"keep_optimizer": "last"} if contender == "disk_last" else {}
    fit(Model(), data(), max_step=10, save_step_interval=1, **settings)
    return sum(path.stat().st_size for path in folder.rglob("*.pth")) / WEIGHTS


CONTENDERS: dict[str, Callable[[str, Path], Any]] = {
    **dict.fromkeys(SAVING, stall),
    **dict.fromkeys(("never", "every_50"), rate),
    **dict.fromkeys(("torch_load", "resume"), resume),
    **dict.fromkeys(("disk_all", "disk_last"), disk),
}


def main(contender: str, *words: str) -> None:
    """Run one contender with the threads of the first word, if it is a number, and print what it cost."""
    torch.manual_seed(0)
    torch.set_num_threads(int(words[0]) if words and words[0].isdigit() else 1)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        os.environ["DARWIN_KIT_HOME"] = name
        result = CONTENDERS[contender](contender, Path(name))
    print(json.dumps(result))


def peak() -> int:
    """Return the most memory that this process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _seconds_until_durable(path: Path) -> float:
    """Return from the end of the saved step, which is about when the next began less its stall, to the last write."""
    step = int("".join(character for character in path.stem.split("=")[-1] if character.isdigit()))
    done = max(
        path.stat().st_mtime, *(other.stat().st_mtime for other in [path.with_suffix(".json")] if other.exists()), 0
    )
    began = walls[step - 1] + _usual()
    return done - began


def _steps() -> list[float]:
    return [after - start for start, after in itertools.pairwise(times)]


def _usual() -> float:
    return statistics.median(value for index, value in enumerate(_steps(), 1) if index % EVERY == EVERY - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
