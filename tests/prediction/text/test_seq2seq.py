"""What a text becomes by a model with an encoder and a decoder."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn

from darkit.data.text.tokenizers import train_tokenizer
from darkit.errors import ConfigError
from darkit.prediction.text.seq2seq import stream_target
from tests.core.parts import STORY

TOKENIZER = train_tokenizer([STORY], "bpe", 300, ["[PAD]", "<|endoftext|>", "[CLS]"])


class Copying(nn.Module):
    """Says the source again: the token at the place that the target has come to."""

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        assert decoder_input_ids[0, 0] == TOKENIZER.token_to_id("[CLS]")
        following = input_ids[:, : decoder_input_ids.shape[1]]
        return nn.functional.one_hot(following, TOKENIZER.get_vocab_size()).float()


def test_a_target_is_told_piece_by_piece_up_to_its_end() -> None:
    pieces = list(stream_target(Copying(), TOKENIZER, "the sea 海 is wide", temperature=0))
    assert "".join(pieces) == "the sea 海 is wide"
    assert len(pieces) > 3
    assert "".join(stream_target(Copying(), TOKENIZER, "the sea is wide", temperature=0, stop=" is")) == "the sea"


def test_a_model_of_transformers_encodes_the_source_once() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=TOKENIZER.get_vocab_size(), **sizes)
    ).eval()
    calls: list[int] = []
    model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    text = "".join(stream_target(model, TOKENIZER, "the sea", temperature=0, max_new_tokens=8))
    assert calls == [1]
    end = TOKENIZER.token_to_id("<|endoftext|>")
    source = torch.tensor([[*TOKENIZER.encode("the sea").ids, end]])
    ids = [0]
    for _ in range(8):
        with torch.no_grad():
            logits = model(input_ids=source, decoder_input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == end:
            break
    assert text == TOKENIZER.decode(ids)


def test_a_text_without_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no tokens"):
        stream_target(Copying(), TOKENIZER, "")
