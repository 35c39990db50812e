"""Characters per second of text made ready for training: ``python tests/benchmarks/preparation.py CONTENDER``.

``encode_batch`` is the tokenizer's own over all documents in memory, which leaves lists of ids; ``prepare`` is
`darkit.data.prepare` of the same documents in files, with the same tokenizer: reading, splitting, tokenizing, and
writing shards that are on the disk when it ends. About 28 million characters. Prints the speed in millions per
second.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from darkit.data import embedded_documents, prepare, train_bpe

COPIES = 60


def documents() -> list[str]:
    """Make documents that differ, so that none is left out as another's copy."""
    return [f"{copy}\n{text}" for copy in range(COPIES) for text in embedded_documents()]


def main(contender: str) -> None:
    """Run one contender and print its speed."""
    tokenizer = train_bpe(embedded_documents(), 8192)
    texts = documents()
    characters = sum(map(len, texts))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "texts"
        folder.mkdir()
        for copy in range(COPIES):
            lines = [text.replace("\n\n", "\n") for text in texts[copy::COPIES]]
            (folder / f"{copy:03}.txt").write_text("\n\n".join(lines))
        started = time.perf_counter()
        if contender == "encode_batch":
            [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        else:
            prepare(folder, tokenizer, documents="paragraph", cache=Path(name) / "cache")
        seconds = time.perf_counter() - started
    print(characters / seconds / 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
