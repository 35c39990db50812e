"""BERT's masking (Devlin et al., 2019).

Of all tokens that are not special, 15 % are chosen; of these 80 % become the mask token, 10 % a random token and 10 %
stay. The labels are -100 everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.collate import IGNORED, Pad
from darkit.data.text.specials import Specials
from darkit.data.text.windows import Pieces, sample_room
from darkit.errors import DataError

Ids = NDArray[numpy.int64]


class Masking:
    """The choice of masked tokens.

    Args:
        specials: The tokenizer's special tokens, which are never masked and never replace another token.
        rate: Fraction of the other tokens that is chosen; in a row exact to within one token, and at least one.
        masked: Fraction of the chosen tokens that becomes the mask token.
        random: Fraction of them that becomes a random token.
        begins: Whether each token of the vocabulary begins a word (vocabulary), from `darkit.data.word_beginnings`:
            whole words are chosen, as many as fit the rate. None chooses tokens.

    Raises:
        DataError: A fraction is out of range, or the tokenizer has no mask token.
    """

    def __init__(
        self,
        specials: Specials,
        *,
        rate: float = 0.15,
        masked: float = 0.8,
        random: float = 0.1,
        begins: NDArray[numpy.bool_] | None = None,
    ) -> None:
        if not 0 < rate <= 1:
            raise DataError(f"rate must be above 0 and at most 1, not {rate}.")
        if min(masked, random) < 0 or masked + random > 1:
            raise DataError(f"masked and random must be at least 0 and together at most 1, not {masked} and {random}.")
        self.specials = specials
        self.rate, self.masked, self.random = rate, masked, random
        self.begins = begins
        special = numpy.zeros(specials.vocabulary, dtype=bool)
        special[sorted(specials.ids)] = True
        self._special = special
        self._ordinary = numpy.flatnonzero(~special)
        if not len(self._ordinary):
            raise DataError("The tokenizer has only special tokens, which are never masked.")

    def __call__(self, ids: Ids, generator: numpy.random.Generator) -> tuple[Ids, Ids]:
        """Mask tokens of a row.

        Args:
            ids: The row (time).
            generator: Generator of the choice.

        Returns:
            The model's inputs (time) and the labels (time).
        """
        places = numpy.flatnonzero(~self._special[ids])
        inputs, labels = ids.copy(), numpy.full_like(ids, IGNORED)
        if not len(places):
            return inputs, labels
        count = max(1, int(self.rate * len(places) + generator.random()))  # the mean is exact for every length
        if self.begins is None:
            chosen = generator.permutation(places)[:count]
        else:
            chosen = _choose_words(self.begins[ids[places]], places, count, generator)
        labels[chosen] = ids[chosen]
        fate = generator.random(len(chosen))
        inputs[chosen[fate < self.masked]] = self.specials.mask
        others = chosen[(fate >= self.masked) & (fate < self.masked + self.random)]
        inputs[others] = generator.choice(self._ordinary, len(others))
        return inputs, labels


def _choose_words(begins: NDArray[numpy.bool_], places: Ids, count: int, generator: numpy.random.Generator) -> Ids:
    """Choose whole words in random order while their tokens fit the count, and at least the shortest word."""
    apart = numpy.diff(places, prepend=-2) > 1  # special tokens separate words
    words = numpy.cumsum(begins | apart) - 1
    sizes = numpy.bincount(words)
    chosen, left = numpy.zeros(len(sizes), dtype=bool), count
    for word in generator.permutation(len(sizes)):
        if sizes[word] <= left:
            chosen[word] = True
            left -= sizes[word]
        if not left:
            break
    if not chosen.any():
        chosen[sizes.argmin()] = True
    found: Ids = places[chosen[words]]
    return found


class MaskedTokens(Dataset[dict[str, Tensor]]):
    """Pieces of documents with masked tokens.

    A sample is ``{"input_ids", "labels"}``, between ``[CLS]`` and ``[SEP]`` if the tokenizer has them; the batch also
    has an ``attention_mask``. Each load of a sample masks other tokens: the choice comes from torch's generator, which
    is restored when a run is resumed.

    Args:
        tokens: A `TokenRow` or a memory-mapped store of tokens.
        length: Maximum tokens per sample, special tokens included.
        masking: The choice of masked tokens.
        packed: Let a piece cross the end of a document, so that all but the last are full.
        seed: Masks the same tokens of a sample each time, for comparable evaluations; None masks others each time.
        fixed: Pad to ``length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``length``.
        facts: Data facts for ``run.json``.

    Raises:
        DataError: The length leaves no room, or there are no tokens.
    """

    task = "masked"

    def __init__(
        self,
        tokens: Any,
        length: int,
        masking: Masking,
        *,
        packed: bool = False,
        seed: int | None = None,
        fixed: bool = False,
        multiple_of: int = 1,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        specials = masking.specials
        self.before = [] if specials.cls is None else [specials.cls]
        self.behind = [] if specials.sep is None else [specials.sep]
        room = sample_room(length, len(self.before) + len(self.behind))
        self.pieces = Pieces(tokens, room, packed=packed)
        if not len(self.pieces):
            raise DataError("The data has no tokens to mask.")
        self.masking = masking
        self.seed = seed
        self.vocabulary = specials.vocabulary
        self.context_length = length
        self.facts = dict(facts or {})
        self.collate_fn = Pad(specials.pad, length=length if fixed else None, multiple_of=multiple_of, most=length)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = numpy.concatenate([self.before, self.pieces[index].numpy(), self.behind]).astype(numpy.int64)
        inputs, labels = self.masking(ids, generator_of(self.seed, index))
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}


def generator_of(seed: int | None, index: int) -> numpy.random.Generator:
    """Return the generator of a sample, seeded by a seed and its index, or by torch's generator."""
    return numpy.random.default_rng(int(torch.randint(2**62, ())) if seed is None else (seed, index))
