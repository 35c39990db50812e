"""The language model: its cache, loss, limits, first weights, and that it looks only backwards and learns."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from darkit.models.gpt import GPT, GPTConfig

SMALL = {"vocab_size": 23, "context_length": 12, "num_layers": 2, "num_heads": 4, "hidden_size": 16}
OPTIONS = [
    {"norm": norm, "positions": positions, "num_kv_heads": groups, "tie_embeddings": tied}
    for norm, positions, groups, tied in itertools.product(
        ("rms", "layer"), ("rotary", "learned"), (None, 2, 1), (True, False)
    )
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))


def small(**options: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SMALL, **options}))
    for parameter in model.parameters():  # far from the first weights, where everything is nearly zero
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def tokens(batch: int, time: int) -> torch.Tensor:
    return torch.randint(SMALL["vocab_size"], (batch, time), generator=torch.Generator().manual_seed(1))


@every_option
@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 1, 4, 1], [12], [1, 11]])
def test_with_a_cache_the_logits_are_those_of_the_whole_sequence(options: dict[str, Any], pieces: list[int]) -> None:
    model, sequence = small(**options), tokens(3, 12)
    cache = model.make_cache(batch_size=3)
    with torch.no_grad():
        found = torch.cat([model(piece, cache=cache) for piece in sequence.split(pieces, dim=1)], dim=1)
        wanted = model(sequence)
    assert cache.length == 12
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert wanted.std() > 0.1, "logits that say nothing would prove nothing"


@every_option
def test_a_later_token_changes_no_earlier_logits_and_an_earlier_one_changes_all_later(options: dict[str, Any]) -> None:
    model, sequence = small(**options), tokens(1, 12)
    changed = sequence.clone()
    changed[0, 5] = (changed[0, 5] + 1) % SMALL["vocab_size"]
    with torch.no_grad():
        before, after = model(sequence)[0], model(changed)[0]
    torch.testing.assert_close(after[:5], before[:5], rtol=0, atol=1e-6)
    assert ((after[5:] - before[5:]).abs().amax(dim=1) > 1e-4).all()


def test_compilers_see_the_whole_model() -> None:
    model, sequence = small(), tokens(2, 9)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(sequence, sequence), model(sequence, sequence))
    exported = torch.export.export(model, (sequence,)).module()
    torch.testing.assert_close(exported(sequence), model(sequence))


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_norm_of_one_token_is_torchs(size: float) -> None:
    norm = small().norm
    hidden = size * torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(norm(hidden), F.rms_norm(hidden, (16,), norm.weight))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_the_order_of_the_tokens_before_matters(positions: str) -> None:
    model, sequence = small(positions=positions, num_layers=1), tokens(1, 6)
    swapped = sequence[:, [1, 0, 2, 3, 4, 5]]
    assert sequence[0, 0] != sequence[0, 1]
    with torch.no_grad():
        assert (model(sequence)[0, -1] - model(swapped)[0, -1]).abs().max() > 1e-4


def test_rotary_positions_know_only_distances() -> None:
    model = small(num_layers=1)
    attention = model.blocks[0].attention
    hidden = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(2))
    early, late = ((model.cosines[at : at + 4], model.sines[at : at + 4]) for at in (0, 7))
    with torch.no_grad():
        torch.testing.assert_close(attention(hidden, early, None), attention(hidden, late, None), rtol=1e-4, atol=1e-5)


@every_option
def test_the_loss_is_the_mean_cross_entropy_in_nats(options: dict[str, Any]) -> None:
    model, sequence = small(**options), tokens(2, 9)
    inputs, targets = sequence[:, :-1], sequence[:, 1:].clone()
    targets[0, 3] = -100
    logits, loss = model(inputs, targets)
    kept = targets != -100
    wanted = F.cross_entropy(logits[kept], targets[kept])
    assert logits.shape == (2, 8, SMALL["vocab_size"])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert loss.requires_grad
    torch.testing.assert_close(model(inputs), logits)


def test_more_tokens_than_the_context_holds_are_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"^13 tokens do not fit into a context of 12\.$"):
        model(tokens(1, 13))
    cache = model.make_cache()
    model(tokens(1, 10), cache=cache)
    with pytest.raises(ValueError, match=r"^13 tokens do not fit into a context of 12\.$"):
        model(tokens(1, 3), cache=cache)
    assert cache.length == 10
    model(tokens(1, 2), cache=cache)
    assert cache.length == 12


def test_the_first_weights_are_gpt_2s() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=500, num_layers=8, hidden_size=96, norm="layer", positions="learned"))
    seen = set()
    for name, parameter in model.named_parameters():
        kind = "norm" if "norm" in name else name.rpartition(".")[2]
        seen.add(kind)
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif kind == "norm":
            assert (parameter == 1).all(), name
        else:
            scale = 0.02 / math.sqrt(2 * 8) if name.endswith(("output.weight", "down.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(scale, rel=0.05), name
    assert seen == {"weight", "bias", "norm"}


def test_at_first_it_knows_nothing() -> None:
    torch.manual_seed(0)
    sequence = tokens(64, 12)
    _, loss = GPT(GPTConfig(**SMALL))(sequence[:, :-1], sequence[:, 1:])
    assert loss.item() == pytest.approx(math.log(SMALL["vocab_size"]), rel=0.02)


def test_tied_embeddings_are_one_parameter() -> None:
    tied, untied = small(tie_embeddings=True), small(tie_embeddings=False)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, untied)]
    assert count[1] - count[0] == 23 * 16


def test_grouped_queries_have_smaller_keys_and_values() -> None:
    config = {**SMALL, "num_kv_heads": 1}
    assert GPTConfig(**config).kv_heads == 1
    assert GPTConfig(**SMALL).kv_heads == 4
    assert small(num_kv_heads=1).blocks[0].attention.key_value.weight.shape == (2 * 4, 16)
    assert small().blocks[0].attention.key_value.weight.shape == (2 * 16, 16)


def test_the_tables_of_positions_are_not_in_the_checkpoint() -> None:
    assert not {"cosines", "sines"} & set(small().state_dict())


def test_dropout_acts_while_training_only() -> None:
    model, sequence = small(dropout=0.5), tokens(1, 8)
    assert torch.equal(model(sequence), model(sequence))
    model.train()
    assert not torch.equal(model(sequence), model(sequence))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number, at least 1, not 0."),
        ({"context_length": -1}, "context_length must be a whole number, at least 1, not -1."),
        ({"num_layers": 1.5}, "num_layers must be a whole number, at least 1, not 1.5."),
        ({"num_heads": True}, "num_heads must be a whole number, at least 1, not True."),
        ({"hidden_size": "64"}, "hidden_size must be a whole number, at least 1, not '64'."),
        ({"num_kv_heads": 0}, "num_kv_heads must be a whole number, at least 1, not 0."),
        ({"hidden_size": 18}, "hidden_size (18) must be a multiple of num_heads (4)."),
        ({"num_kv_heads": 3}, "num_heads (4) must be a multiple of num_kv_heads (3)."),
        ({"hidden_size": 12}, "Rotary positions need heads of even size, not 3."),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1, not 1.0."),
        ({"dropout": -0.1}, "dropout must be a number from 0 to below 1, not -0.1."),
        ({"dropout": "0"}, "dropout must be a number from 0 to below 1, not '0'."),
        ({"norm": "batch"}, "norm must be one of rms, layer, not 'batch'."),
        ({"positions": "alibi"}, "positions must be one of rotary, learned, not 'alibi'."),
        ({"tie_embeddings": 1}, "tie_embeddings must be true or false, not 1."),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_in_one_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        GPTConfig(**{**SMALL, **wrong})


def test_odd_heads_are_fine_with_learned_positions() -> None:
    assert small(hidden_size=12, positions="learned")(tokens(1, 3)).shape == (1, 3, 23)


@pytest.mark.parametrize("options", [{}, {"norm": "layer", "positions": "learned", "num_kv_heads": 2}])
def test_it_learns_a_sequence_that_needs_two_tokens_of_the_past(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SMALL, "vocab_size": 7, **options}))
    generator = torch.Generator().manual_seed(3)
    sequence = torch.randint(7, (64, 13), generator=generator)
    for place in range(2, 13):  # each token is the sum of the two before it
        sequence[:, place] = (sequence[:, place - 1] + sequence[:, place - 2]) % 7
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        model(sequence[:, :-1], sequence[:, 1:])[1].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model(sequence[:, :-1]).argmax(-1)
    assert (predicted[:, 1:] == sequence[:, 2:]).float().mean() > 0.95
