"""Models, data and callbacks that draw random numbers or have a state, and a training that is broken off anywhere."""

from __future__ import annotations

import gc
import random
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler

import darkit
from darkit.engine import resume
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.runs.checkpoints import find_checkpoint
from tests.engine.parts import Numbers, train, xy

STEPS = 11


class Dropping(nn.Module):
    """Dropout, a buffer that changes in the forward pass, and numbers from every generator of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 1))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        noise = random.random() + float(numpy.random.rand())
        return F.mse_loss(self.layers(x), y) * (1 + 0.1 * noise)


class Augmented(Dataset[Any]):
    """Every sample is another one each time it is loaded."""

    def __init__(self, length: int = 16) -> None:
        self.samples = Numbers(length)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        x, y = self.samples[index]
        return x + 0.1 * torch.randn(4) + random.random() + float(numpy.random.rand()), y


class Shuffled(IterableDataset[Any]):
    """Draws its order from torch's generator when it begins, and can only be read from its start."""

    def __iter__(self) -> Iterator[Any]:
        samples = Augmented()
        worker = torch.utils.data.get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(int(torch.randint(1000, ()))))
        return (samples[index] for index in order.tolist()[first::every])


class Continuing(IterableDataset[Any]):
    """Knows its place."""

    def __init__(self, sized: bool = False) -> None:
        self.place = 0
        self.asked: list[int] = []
        if sized:
            self.__class__ = SizedContinuing

    def __iter__(self) -> Iterator[Any]:
        x, y = xy()
        for index in range(self.place, 16):
            self.place = index + 1
            self.asked.append(index)
            yield x[index] + 0.1 * torch.randn(4), y[index]
        self.place = 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


class SizedContinuing(Continuing):
    """Knows how long it is besides."""

    def __len__(self) -> int:
        return 16


class OwnSampler(Sampler[int]):
    """Draws from torch's generator and listens to the epoch."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter([(index + self.epoch) % 16 for index in torch.randperm(16).tolist()])

    def __len__(self) -> int:
        return 16


class Counting(Sampler[int]):
    """Counts its epochs itself, and shuffles one list in place with generators of its own."""

    def __init__(self) -> None:
        self.epoch = 0
        self.indices = list(range(16))
        self.places = numpy.arange(16)
        self.python = random.Random(4)
        self.numpy = numpy.random.default_rng(5)
        self.old = numpy.random.RandomState(6)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        self.python.shuffle(self.indices)
        self.numpy.shuffle(self.places)
        return iter([(self.indices[place] + self.epoch + self.old.randint(16)) % 16 for place in self.places.tolist()])

    def __len__(self) -> int:
        return 16


class Buffered(IterableDataset[Any]):
    """Mixes its samples in a buffer, as they are asked for, with numbers from torch's generator."""

    def __iter__(self) -> Iterator[Any]:
        buffer: list[Any] = []
        for x, y in zip(*xy(), strict=True):
            buffer.append((x, y))
            if len(buffer) > 5:
                yield buffer.pop(int(torch.randint(len(buffer), ())))
        yield from buffer


class OwnNoise(Dataset[Any]):
    """Draws from generators of its own."""

    def __init__(self) -> None:
        self.numpy = numpy.random.default_rng(3)
        self.torch = torch.Generator().manual_seed(4)

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        x, y = xy()
        noise = torch.randn(4, generator=self.torch) + self.numpy.random()
        return (x[index] + 0.1 * noise).float(), y[index]


def weighted(**options: Any) -> DataLoader[Any]:
    """A loader with a batch sampler around a weighted one: 5 batches of 4 and fewer."""
    sampler = WeightedRandomSampler(torch.arange(1.0, 17.0).tolist(), 18)
    return DataLoader(Augmented(), batch_sampler=BatchSampler(sampler, 4, False), **options)


def hugging(buffer_size: int, **options: Any) -> DataLoader[Any]:
    """A stream of Hugging Face that is shuffled, of 24 samples."""
    import datasets

    x, y = xy(24)
    rows = {"x": x.tolist(), "y": y.tolist()}
    stream = datasets.Dataset.from_dict(rows).to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=buffer_size)
    return DataLoader(stream.with_format("torch"), batch_size=6, collate_fn=pairs, **options)


def pairs(rows: list[Any]) -> Any:
    """Rows with x and y as two tensors."""
    return torch.stack([row["x"] for row in rows]), torch.stack([row["y"] for row in rows])


class Epochs(lightning.Callback):
    """Counts what it hears, and makes a random number part of the training."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.average = torch.zeros(())

    def setup(self, *arguments: Any, **named: Any) -> None:
        self.heard = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.heard.append(f"start {trainer.current_epoch}")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.heard.append(f"end {trainer.current_epoch}")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if outputs:
            self.average = self.average * 0.9 + outputs["loss"] * 0.1
            outputs["average"] = self.average

    def state_dict(self) -> dict[str, Any]:
        return {"heard": list(self.heard), "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heard, self.average = list(state["heard"]), state["average"].clone()


def shuffling(**options: Any) -> DataLoader[Any]:
    """Somebody's loader."""
    return DataLoader(Augmented(), batch_size=6, shuffle=True, **options)


def run_one(
    data: Callable[[], Any], name: str, *, model: Callable[[], nn.Module] = Dropping, **options: Any
) -> darkit.Run:
    """Train with fresh parts, all steps saved."""
    torch.manual_seed(5)
    made = {key: value() for key, value in options.items() if key in ("callbacks", "metrics")}
    settings: dict[str, Any] = {"max_step": STEPS, "save_step_interval": 1, "seed": 3, "optimizer": "adamw"}
    return train(model(), data(), name=name, **{**settings, **options, **made})


def break_off(run: darkit.Run, step: int) -> str:
    """Copy a run as it was after a step; return the copy's name."""
    name = f"{run.name}-{step}"
    shutil.copytree(run.path, run.path.parent / name)
    for checkpoint in darkit.load(name).checkpoints():
        if checkpoint.step > step:
            checkpoint.path.unlink()
            checkpoint.path.with_suffix(".json").unlink()
    return name


def assert_same(run: darkit.Run, other: darkit.Run, step: int = STEPS) -> None:
    """Assert that two runs ended in the same state and logged the same."""
    one, two = (read_checkpoint(find_checkpoint(which.path, step)) for which in (run, other))
    assert list(differences(one, two)) == []
    logs = [which.log().drop("time").to_dicts() for which in (run, other)]
    assert logs[0] == logs[1]


class Held(lightning.Callback):
    """Counts, after every step, the weights and optimizer state that are in memory beside those that are trained.

    Only what was read from a checkpoint in its block counts. An optimizer may keep using the tensors that were
    read.

    Attributes:
        read: Weak references to what was read.
        left: The count after each step.
    """

    def __init__(self) -> None:
        self.read: list[weakref.ref[Tensor]] = []
        self.left: list[int] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        original = resume.read_run_checkpoint

        def read(*arguments: Any) -> Any:
            checkpoint, content = original(*arguments)
            states = [value for key, value in content.items() if key.endswith(("state_dict", "optimizer_states"))]
            self.read += [weakref.ref(value) for value in tree_leaves(states) if isinstance(value, Tensor)]
            return checkpoint, content

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(resume, "read_run_checkpoint", read)
            yield

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if self._count(trainer):
            gc.collect()  # takes long in a process of many tests
        self.left.append(self._count(trainer))

    def _count(self, trainer: lightning.Trainer) -> int:
        trained = {id(value) for one in trainer.optimizers for value in tree_leaves(list(one.state.values()))}
        return sum(tensor() is not None and id(tensor()) not in trained for tensor in self.read)
