"""A folder of your own text becomes a language model that goes on with a prompt.

    python examples/own_text.py [FOLDER]

Without a folder it takes the source of Python's own email package, which is text that every Python has.
"""

import email
import sys
import tempfile
from pathlib import Path

import darkit
from darkit.core import Predicter
from darkit.data import text_files
from darkit.models.gpt import GPT, GPTConfig


def some_text() -> Path:
    folder = Path(tempfile.mkdtemp())
    for path in Path(email.__file__).parent.glob("*.py"):
        (folder / f"{path.stem}.txt").write_text(path.read_text())
    return folder


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else some_text()
    data = text_files(folder, context_length=64, vocab_size=512)  # tokenized once, then cached
    model = GPT(GPTConfig(vocab_size=data.settings["vocab_size"], context_length=64, num_layers=2, hidden_size=128))
    run = darkit.fit(
        model,
        data.train,
        data.val,
        tokenizer=data.tokenizer,
        max_step=100,
        lr=2e-3,
        warmup_step=10,
        log_step_interval=50,
    )

    print(f"{run.name} is {run.status}: {run.path}")
    print(f"val_loss {run.log()['val_loss'].drop_nulls()[-1]:.3f}, unigram model {data.baselines['unigram model']:.3f}")
    print("def decode", end="")
    for piece in Predicter.from_pretrained(run.name).predict("def decode", max_new_tokens=80, top_k=40, seed=0):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
