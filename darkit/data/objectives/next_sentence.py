"""Next-sentence pairs, the second of BERT's objectives (Devlin et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from darkit.data.collate import Pad
from darkit.data.objectives.masking import Ids, Masking, generator_of
from darkit.data.text.windows import Pieces, read_tokens
from darkit.errors import DataError


class SentencePairs(Dataset[dict[str, Tensor]]):
    """Pairs of texts: the second is the next one in half of all cases, and otherwise from another document.

    As in the paper, a "sentence" is any span of text: a piece of a document is cut in two at the end of a sentence, or
    anywhere if it contains none; a text from another document starts after the end of a sentence too.

    A sample is ``[CLS] a [SEP] b [SEP]`` with masked tokens: ``{"input_ids", "token_type_ids", "labels",
    "next_sentence_label"}``, the last being 0 if b comes next and 1 if it is random, as in transformers. The batch also
    has an ``attention_mask``.

    Args:
        tokens: A `TokenRow` or a memory-mapped store of tokens, of at least two documents.
        length: Maximum tokens per sample.
        masking: The choice of masked tokens.
        endings: Whether each token of the vocabulary ends a sentence (vocabulary), from
            `darkit.data.text.specials.sentence_endings`; None cuts anywhere.
        seed: Makes the same sample of a piece each time, for comparable evaluations; None makes others each time.
        fixed: Pad to ``length`` instead of to the longest sample of the batch.
        multiple_of: Round the padded length up to a multiple of this, up to ``length``.
        facts: Data facts for ``run.json``.

    Raises:
        DataError: The tokenizer has no ``[CLS]`` or ``[SEP]``, the length leaves no room for two tokens, or fewer than
            two documents have two tokens.
    """

    task = "masked"

    def __init__(
        self,
        tokens: Any,
        length: int,
        masking: Masking,
        *,
        endings: NDArray[numpy.bool_] | None = None,
        seed: int | None = None,
        fixed: bool = False,
        multiple_of: int = 1,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if masking.specials.cls is None or masking.specials.sep is None:
            raise DataError("Pairs of sentences need a tokenizer with the special tokens [CLS] and [SEP].")
        if length < 5:
            raise DataError(f"A pair must have 5 tokens at least ([CLS] a [SEP] b [SEP]), not {length}.")
        places = Pieces(tokens, length - 3).places()
        self._places = places[places[:, 2] - places[:, 1] > 1]
        if len(numpy.unique(self._places[:, 0])) < 2:
            raise DataError("Pairs of sentences need two documents at least with two tokens each.")
        self.tokens = tokens
        self.masking = masking
        self.endings = endings
        self.seed = seed
        self.vocabulary = masking.specials.vocabulary
        self.context_length = length
        self.facts = dict(facts or {})
        pad = masking.specials.pad
        self.collate_fn = Pad(pad, length=length if fixed else None, multiple_of=multiple_of, most=length)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = generator_of(self.seed, index)
        document, first, end = (int(value) for value in self._places[index])
        cuts = self._beginnings(first, end)
        cut = int(generator.choice(cuts) if len(cuts) else generator.integers(first + 1, end))
        random = bool(generator.random() < 0.5)
        one = self._read(first, cut)
        two = self._other(document, end - cut, generator) if random else self._read(cut, end)
        cls, sep = [self.masking.specials.cls], [self.masking.specials.sep]
        ids = numpy.concatenate([cls, one, sep, two, sep]).astype(numpy.int64)
        types = numpy.repeat([0, 1], [len(one) + 2, len(two) + 1])
        inputs, labels = self.masking(ids, generator)
        return {
            "input_ids": torch.from_numpy(inputs),
            "token_type_ids": torch.from_numpy(types),
            "labels": torch.from_numpy(labels),
            "next_sentence_label": torch.tensor(int(random)),
        }

    def _other(self, document: int, length: int, generator: numpy.random.Generator) -> Ids:
        """Read at most ``length`` tokens of another document."""
        own = numpy.searchsorted(self._places[:, 0], [document, document + 1])
        place = int(generator.integers(len(self._places) - (own[1] - own[0])))
        other, first, end = (int(value) for value in self._places[place if place < own[0] else place + own[1] - own[0]])
        latest = max(first, end - length)
        starts = self._beginnings(first, end)
        if self.endings is not None and first == self.tokens.bounds[other]:
            starts = numpy.concatenate([[first], starts])
        early = starts[starts <= latest]
        if len(early):
            start = int(generator.choice(early))
        else:
            start = int(starts[0]) if len(starts) else int(generator.integers(first, latest + 1))
        return self._read(start, min(start + length, int(self.tokens.bounds[other + 1])))

    def _beginnings(self, first: int, end: int) -> Ids:
        """Return the positions in a span that follow the end of a sentence."""
        if self.endings is None:
            return numpy.empty(0, dtype=numpy.int64)
        return first + 1 + numpy.flatnonzero(self.endings[self._read(first, end - 1)])

    def _read(self, first: int, end: int) -> Ids:
        ids: Ids = read_tokens(self.tokens, first, end).numpy()
        return ids
