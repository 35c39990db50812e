"""Blocks of tokens of one length, across the ends of texts."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.text.windows import TokenRow, read_tokens
from darkit.errors import DataError


class PackedDataset(Dataset[Tensor]):
    """Consecutive blocks (block_size) of a row of tokens; what is left at the end is dropped.

    Args:
        tokens: The row.
        block_size: Tokens per block.
        seed: Seed of the order, if ``shuffle``.
        shuffle: Whether the blocks come in a random order, the same each time.
        num_processes: Number of processes that share the blocks.
        process_rank: Which of them this is; all get equally many.

    Raises:
        DataError: There are too few tokens for a block of each process, or a number is out of range.
    """

    def __init__(
        self,
        tokens: TokenRow,
        block_size: int,
        seed: int = 12345,
        shuffle: bool = False,
        num_processes: int = 1,
        process_rank: int = 0,
    ) -> None:
        if block_size < 1 or not 0 <= process_rank < num_processes:
            raise DataError(
                f"block_size must be at least 1 and process_rank below num_processes, not {block_size}, {process_rank} "
                f"and {num_processes}."
            )
        self.tokens, self.block_size = tokens, block_size
        count = len(tokens) // block_size
        order = numpy.random.default_rng(seed).permutation(count) if shuffle else numpy.arange(count)
        self._blocks = order[: count // num_processes * num_processes][process_rank::num_processes]
        if not len(self._blocks):
            raise DataError(
                f"{len(tokens)} tokens are too few for blocks of {block_size} for {num_processes} processes."
            )

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        first = int(self._blocks[index]) * self.block_size
        return read_tokens(self.tokens, first, first + self.block_size).to(torch.int64)
