"""Tokens hidden from a model that it is to find: BERT's masking (Devlin et al., 2019).

Of all tokens that are not special, 15 % are chosen; of these 80 % become the mask token, 10 % another token and 10 %
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
    """How tokens are hidden.

    Args:
        specials: The tokenizer's special tokens, none of which is hidden or put in another's place.
        rate: Which part of the other tokens is chosen; of a row it is that part to within one token, and at least one.
        masked: Which part of the chosen becomes the mask token.
        random: Which part becomes another token.
        begins: Whether each token of the vocabulary begins a word (vocabulary): then whole words are chosen, as many as
            fit the rate; `darkit.data.word_beginnings` makes it. None chooses tokens.

    Raises:
        DataError: A part is out of its range, or the tokenizer has no mask token.
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
            raise DataError(f"The rate of masked tokens must lie above 0 and at most at 1, not be {rate}.")
        if min(masked, random) < 0 or masked + random > 1:
            raise DataError(
                f"The parts of the chosen tokens must be at least 0 and together at most 1, not {masked} and {random}."
            )
        self.specials = specials
        self.rate, self.masked, self.random = rate, masked, random
        self.begins = begins
        special = numpy.zeros(specials.vocabulary, dtype=bool)
        special[sorted(specials.ids)] = True
        self._special = special
        self._ordinary = numpy.flatnonzero(~special)
        if not len(self._ordinary):
            raise DataError("The tokenizer has only special tokens: there is nothing to hide.")

    def __call__(self, ids: Ids, generator: numpy.random.Generator) -> tuple[Ids, Ids]:
        """Hide tokens of a row.

        Args:
            ids: The row (time).
            generator: Where the choice comes from.

        Returns:
            What the model sees (time), and the labels (time).
        """
        places = numpy.flatnonzero(~self._special[ids])
        inputs, labels = ids.copy(), numpy.full_like(ids, IGNORED)
        if not len(places):
            return inputs, labels
        count = max(1, int(self.rate * len(places) + generator.random()))  # its mean is the rate, whatever the length
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
    """Choose whole words, in a random order, as long as their tokens fit the count; or else the shortest one."""
    apart = numpy.diff(places, prepend=-2) > 1  # a special token lies between
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
    """Documents in pieces of which some tokens are hidden.

    A sample is ``{"input_ids", "labels"}``, with the tokenizer's ``[CLS]`` before and ``[SEP]`` behind where it has
    them; the batch gets an ``attention_mask`` besides. Every time a sample is loaded other tokens are hidden: the
    choice comes from torch's generator, which darkit puts where it was when a run goes on.

    Args:
        tokens: A `TokenRow` or a memory-mapped store of tokens.
        length: Tokens of a sample at most, those before and behind included.
        masking: How tokens are hidden.
        packed: Whether a piece may go over the end of a document, so that all but the last are full.
        seed: Always hides the same tokens of a sample, for an evaluation that can be compared; None hides others each
            time.
        fixed: Whether to pad to ``length`` instead of to the longest of the batch.
        multiple_of: Of what the padded length is a multiple, as far as ``length`` allows.
        facts: What ``run.json`` tells of the data.

    Raises:
        DataError: The length leaves no place, or there are no tokens.
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
            raise DataError("The data has no tokens: there is nothing to hide.")
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
    """Make the generator of a sample: of a seed and the sample's index, or of the next number of torch's generator."""
    return numpy.random.default_rng(int(torch.randint(2**62, ())) if seed is None else (seed, index))
