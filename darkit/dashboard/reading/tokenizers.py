"""The facts of a tokenizer that a page shows, from its file alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_object

_LONGEST = 64 * 2**20  # bytes; vocabularies are long
_MOST_SPECIAL = 20


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer, summarized.

    Attributes:
        kind: The name of its algorithm, such as ``BPE``.
        size: The size of its vocabulary.
        special: Its special tokens, in one line.
    """

    kind: str
    size: int
    special: str


def tokenizer_facts(folder: Path) -> TokenizerFacts | None:
    """Read ``tokenizer.json``; None if it is missing or unreadable."""
    try:
        values = read_object(folder / files.TOKENIZER, _LONGEST)
    except (OSError, UnreadableError):
        return None
    model = values.get("model")
    added = values.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    kind = str(model.get("type", "")) if isinstance(model, dict) else ""
    tokens = (
        [str(token["content"]) for token in added if isinstance(token, dict) and "content" in token]
        if isinstance(added, list)
        else []
    )
    known = set(vocabulary) if isinstance(vocabulary, dict) else set()
    size = len(known | set(tokens)) if known else len(vocabulary) if isinstance(vocabulary, list) else len(tokens)
    return TokenizerFacts(kind, size, "  ".join(tokens[:_MOST_SPECIAL]))
