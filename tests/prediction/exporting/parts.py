"""Tokens, a tokenizer and a config for small language models."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

GPT2 = {
    "vocab_size": 50,
    "n_positions": 16,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tokens() -> list[dict[str, torch.Tensor]]:
    drawn = torch.randint(0, 50, (16, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in drawn]


def tokenizer() -> Tokenizer:
    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(47))]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(["<s>", "</s>"])
    return made
