"""Batches of memory-mapped tokens: ``python tests/benchmarks/windows.py CONTENDER small|large``.

Each contender reads batches of tokens and next tokens, as int64 in host memory, from the same file of ``uint16`` ids in
a process of its own. ``random_offsets`` is what a training script without a loader does, nanoGPT's among them: it draws
offsets, maps the file anew for each batch against a leak of numpy's, and stacks a copy of each window. ``darkit`` takes
the batches that ``fit`` trains on: each window once an epoch, in an order with a position that can be resumed.
Prints microseconds per batch.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch

TOKENS = 8_000_000
SIZES = {"small": (16, 128), "large": (12, 1024)}  # windows, tokens
WARM, BATCHES = 50, 600


def random_offsets(file: Path, windows: int, length: int) -> Iterator[Any]:
    """Draw offsets and stack windows."""
    while True:
        row = numpy.memmap(file, dtype=numpy.uint16, mode="r")
        firsts = torch.randint(len(row) - length, (windows,)).tolist()
        inputs, targets = (
            torch.stack(
                [torch.from_numpy(row[first + shift : first + shift + length].astype(numpy.int64)) for first in firsts]
            )
            for shift in (0, 1)
        )
        yield inputs, targets


def darkit(file: Path, windows: int, length: int) -> Iterator[Any]:
    """Take the batches of a training."""
    from darkit.data.text.shards import PartFacts, TokenStore
    from darkit.data.text.windows import TokenWindows
    from darkit.engine.config import TrainerConfig
    from darkit.engine.data.loaders import make_loaders

    facts = PartFacts(TOKENS, 1, 0, "uint16", TOKENS, 1)
    data = TokenWindows(TokenStore(file.parent, "train", facts, 2**16), length)
    feed = make_loaders(data, None, TrainerConfig(batch_size=windows, device="cpu")).train
    epoch = 0
    while True:
        for batch in feed:
            feed.batches += 1
            yield batch
        epoch += 1
        feed.next_epoch(epoch)


CONTENDERS: dict[str, Callable[[Path, int, int], Iterator[Any]]] = {
    "random_offsets": random_offsets,
    "darkit": darkit,
}


def main(contender: str, size: str = "small") -> None:
    """Run one contender and print its time per batch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = numpy.random.default_rng(0).integers(2**16, size=TOKENS, dtype=numpy.uint16)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train-00000.bin")
        file.write_bytes(ids.tobytes())
        Path(folder, "train.index").write_bytes(numpy.array([0, TOKENS], dtype="<i8").tobytes())
        batches = CONTENDERS[contender](file, *SIZES[size])
        for inputs, targets in islice(batches, WARM):
            assert inputs.shape == targets.shape == SIZES[size]
            assert torch.equal(inputs[:, 1:], targets[:, :-1])
        started = time.perf_counter()
        for _ in islice(batches, BATCHES):
            pass
        print((time.perf_counter() - started) / BATCHES * 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
