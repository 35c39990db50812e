"""Tokens per second of a language model: ``python tests/benchmarks/generation.py CONTENDER small|medium [TEXTS]``.

Each contender runs in a process of its own, with one thread, a cache and the likeliest token each time; its model has
the same vocabulary, context, layers, heads and hidden size. ``darkit`` is what ``Predicter.predict`` does, text
included; ``transformers`` is ``generate`` of its GPT-2, and ``transformers_loop`` the same model in the shortest loop
that one can write by hand, tokens only. ``darkit_transformers`` is darkit with that model. Several texts are continued
together.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn

VOCABULARY = 2048
CONTEXT = 512
PROMPT = "The import statement finds a module, and binds it to a name in the scope where the statement is. " * 2
NEW, NEW_OF_SEVERAL = 256, 64
SIZES = {"small": (4, 4, 192), "medium": (8, 8, 512)}  # layers, heads, hidden size


def gpt(size: str) -> nn.Module:
    """Make darkit's model as its configs have it."""
    from darkit.models.gpt import GPT, GPTConfig

    layers, heads, hidden = SIZES[size]
    sizes = {"num_layers": layers, "num_heads": heads, "hidden_size": hidden}
    return GPT(GPTConfig(vocab_size=VOCABULARY, context_length=CONTEXT, **sizes)).eval()


def gpt2(size: str) -> Any:
    """Make transformers' model; no token ends its text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, heads, hidden = SIZES[size]
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": hidden}
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, eos_token_id=None, bos_token_id=None, **sizes)
    return GPT2LMHeadModel(config).eval()


def tokenizer() -> Any:
    """Train the default run's tokenizer, without a token that ends a text, for an untrained model may choose it."""
    from darkit.data.objectives.causal import embedded_documents
    from darkit.data.text.tokenizers import train_bpe

    return train_bpe(embedded_documents(), VOCABULARY, special_tokens=())


def stream(model: nn.Module, texts: int, new: int) -> Callable[[], Any]:
    """Goes on with darkit."""
    from darkit.prediction.text.generate import stream_texts

    words = tokenizer()
    return lambda: [
        list(pieces) for pieces in stream_texts(model, words, [PROMPT] * texts, max_new_tokens=new, temperature=0)
    ]


def generate(model: Any, texts: int, new: int) -> Callable[[], Any]:
    """Goes on with transformers."""
    ids = torch.tensor([tokenizer().encode(PROMPT).ids] * texts)
    settings = {"max_new_tokens": new, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), **settings)


def loop(model: Any, texts: int, new: int) -> Callable[[], Any]:
    """Goes on with transformers' model by hand."""
    ids = torch.tensor([tokenizer().encode(PROMPT).ids] * texts)

    def run() -> None:
        tokens, cache = ids, None
        for _ in range(new):
            with torch.inference_mode():
                output = model(tokens, past_key_values=cache, use_cache=True)
            cache, tokens = output.past_key_values, output.logits[:, -1:].argmax(-1)

    return run


CONTENDERS: dict[str, tuple[Callable[[str], Any], Callable[[Any, int, int], Callable[[], Any]]]] = {
    "darkit": (gpt, stream),
    "darkit_transformers": (gpt2, stream),
    "transformers": (gpt2, generate),
    "transformers_loop": (gpt2, loop),
}


def main(contender: str, size: str, texts: str = "1") -> None:
    """Print tokens per second, the fastest of three times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, continue_texts = CONTENDERS[contender]
    count = int(texts)
    new = NEW if count == 1 else NEW_OF_SEVERAL
    run = continue_texts(make(size), count, new)
    run()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    print(count * new / min(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
