"""What a checkpoint of 600 MB costs: ``python tests/benchmarks/checkpoints.py CONTENDER``.

Each contender trains a model of 50 million parameters with Adam for some steps in a process of its own and saves now
and then. The forward pass notes the time. Prints, as JSON: ``stall`` (how much longer a step with a save takes than the
median of the others, in ms, median from the second save on), ``first`` (the same of the first save), ``durable``
(seconds from the save to the file being complete on the disk, median) and ``memory`` (in multiples of the state: the
state itself, and by how much the first save and all after it raised the peak of the process).
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
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

LAYERS, SIZE = 12, 2041  # 50 million parameters
EVERY, SAVES = 12, 5
STEPS = EVERY * SAVES + EVERY - 1
times: list[float] = []
walls: list[float] = []
peaks: list[int] = []


class Model(nn.Module):
    """Wide layers; few samples, so that a step is short against its state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(SIZE, SIZE) for _ in range(LAYERS))

    def forward(self, inputs: Tensor) -> Tensor:
        times.append(time.perf_counter())
        walls.append(time.time())
        peaks.append(peak())
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs))
        return inputs.square().mean()


def data() -> list[tuple[Tensor]]:
    """Make a sample per step."""
    return [(torch.randn(SIZE),) for _ in range(STEPS)]


def loop(save: Callable[[nn.Module, torch.optim.Optimizer, int], None]) -> None:
    """Train by hand and call ``save`` after now and then."""
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
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
            return torch.optim.Adam(self.parameters())

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


def darkit_run(folder: Path) -> None:
    """darkit."""
    import darkit

    os.environ["DARWIN_KIT_HOME"] = str(folder)
    darkit.fit(
        Model(),
        data(),
        device="cpu",
        optimizer="adam",
        batch_size=1,
        max_step=STEPS,
        save_step_interval=EVERY,
        name="run",
        tensorboard=False,
    )


CONTENDERS = {
    "bare_clone": bare_clone,
    "plain_save": plain_save,
    "lightning_stock": lightning_stock,
    "lightning_async": lightning_async,
    "darkit": darkit_run,
}


def main(contender: str) -> None:
    """Run one contender and print what it cost."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        CONTENDERS[contender](folder)
        written = sorted(folder.rglob("*.pth")) + sorted(folder.rglob("*.ckpt"))
        durable = [_seconds_until_durable(path) for path in written]
    state = LAYERS * (SIZE + 1) * SIZE * 12  # float32 weights and Adam's two averages
    stalls = [(value - _usual()) * 1e3 for index, value in enumerate(_steps(), 1) if index % EVERY == 0]
    result = {
        "stall": statistics.median(stalls[1:]),
        "first": stalls[0],
        "durable": statistics.median(durable) if durable else 0.0,
        "memory": 1 + (peak() - peaks[EVERY - 1]) / state,
        "step": _usual() * 1e3,
    }
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
    return statistics.median(value for index, value in enumerate(_steps(), 1) if index % EVERY)


if __name__ == "__main__":
    main(*sys.argv[1:])
