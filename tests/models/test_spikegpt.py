"""The spiking language model: binary, causal, the same in parallel and token by token, and it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import darkit
from darkit.engine.spiking.receipt import measure
from darkit.models.gpt import GPT, GPTConfig
from darkit.models.spikegpt import SpikeGPT, SpikeGPTConfig, mix_over_time
from tests.cli.parts import done

SMALL = {"vocab_size": 50, "context_length": 40, "num_layers": 2, "hidden_size": 16, "feed_forward_size": 56}


def made(**changes: Any) -> SpikeGPT:
    torch.manual_seed(0)
    return SpikeGPT(SpikeGPTConfig(**{**SMALL, **changes}))


def tokens(batch: int = 2, time: int = 40) -> torch.Tensor:
    return torch.randint(0, 50, (batch, time), generator=torch.Generator().manual_seed(1))


def test_the_default_has_as_many_parameters_as_the_default_gpt() -> None:
    sizes = [
        sum(parameter.numel() for parameter in model.parameters())
        for model in (SpikeGPT(SpikeGPTConfig()), GPT(GPTConfig()))
    ]
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.03)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(0, 99))
def test_token_by_token_and_in_stretches_is_as_in_parallel(sizes: list[int], seed: int) -> None:
    model = made().eval()
    for parameter in model.parameters():  # far from where it began, as after a training
        torch.nn.init.normal_(parameter, std=0.5)
    ids = torch.randint(0, 50, (2, sum(sizes)), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        whole = model(ids)
        for stretches in (sizes, [1] * sum(sizes)):
            cache = model.make_cache(2)
            pieces = [model(stretch, cache=cache) for stretch in ids.split(stretches, dim=1)]
            torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)
            assert cache.length == sum(sizes)


def test_the_state_has_one_size_however_long_the_text_is() -> None:
    model = made().eval()
    cache = model.make_cache()
    sizes = set()
    for _ in range(100):
        model(tokens(1, 3), cache=cache)
        sizes.add(sum(part.numel() for block in cache.blocks for half in block for part in half))
    assert len(sizes) == 1
    assert (cache.length, cache.limit) == (300, None)


def test_a_later_token_changes_nothing_before_it() -> None:
    model = made().eval()
    one, other = tokens(), tokens()
    other[:, 25] = (other[:, 25] + 1) % 50
    with torch.inference_mode():
        first, second = model(one), model(other)
    assert torch.equal(first[:, :25], second[:, :25])
    assert not torch.allclose(first[:, 25:], second[:, 25:])


def test_every_parameter_learns_and_the_neurons_are_binary() -> None:
    model = made()
    spikes: list[torch.Tensor] = []
    for block in model.blocks:
        for neurons in (block.mixing_neurons, block.feeding_neurons):
            neurons.register_forward_hook(lambda module, given, output: spikes.append(output[0]))
    model(tokens(), tokens())[1].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert all(set(part.unique().tolist()) <= {0.0, 1.0} for part in spikes)
    assert len(spikes) == 4


def test_the_mean_over_time_is_what_its_formula_says() -> None:
    generator = torch.Generator().manual_seed(2)
    key, value = (torch.randn(2, 70, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    decay, bonus = torch.tensor([0.01, 0.5, 3.0]).double(), torch.tensor([-1.0, 0.0, 2.0]).double()
    found, _ = mix_over_time(key, value, decay, bonus, torch.zeros(2, 2, 3, dtype=torch.float64))
    for time in range(70):
        past = torch.arange(time)
        weights = torch.exp(-(time - 1 - past)[:, None] * decay + key[:, :time])
        present = torch.exp(bonus + key[:, time])
        above = (weights * value[:, :time]).sum(1) + present * value[:, time]
        torch.testing.assert_close(found[:, time], above / (weights.sum(1) + present))


def test_extreme_keys_stay_finite() -> None:
    key = torch.tensor([[[1e4], [-1e4], [1e4], [-1e4]]])
    found, left = mix_over_time(key, torch.ones(1, 4, 1), torch.tensor([50.0]), torch.zeros(1), torch.zeros(2, 1, 1))
    assert torch.isfinite(found).all()
    assert torch.isfinite(left).all()


def test_targets_of_minus_100_are_left_out() -> None:
    model = made().eval()
    ids, targets = tokens(), tokens()
    targets[:, 5:] = -100
    logits, loss = model(ids, targets)
    wanted = torch.nn.functional.cross_entropy(logits[:, :5].flatten(0, 1), targets[:, :5].flatten())
    assert loss.item() == pytest.approx(wanted.item())


def test_silent_neurons_save_all_but_the_dense_matrices() -> None:
    model = made(threshold=1e6).eval()
    with torch.no_grad():
        _, silent = measure(model, lambda: model(tokens()))
    size, wide = 16, 56
    assert silent is not None
    assert [row["firing rate"] for row in silent.layers] == [0] * 4
    assert [row["dead"] for row in silent.layers] == [1] * 4
    each = silent.synapses["blocks.1.mixing.key"]
    assert (each.accumulated, each.dense) == (0, tokens().numel() * size * size)
    each = silent.synapses["blocks.0.feeding.down"]
    assert each.dense == tokens().numel() * size * wide
    model = made(threshold=0.3).eval()
    with torch.no_grad():
        _, busy = measure(model, lambda: model(tokens()))
    assert busy is not None
    each = busy.synapses["blocks.1.mixing.key"]
    assert 0 < each.accumulated < each.dense
    assert each.multiplied == 0


def test_a_training_on_text_logs_rates_and_learns_and_goes_on_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    small = ("model.config.num_layers=2", "model.config.hidden_size=32", "model.config.feed_forward_size=64")
    text = ("data.context_length=32", "data.vocab_size=300", "trainer.max_step=30", "trainer.eval_iters=2")
    steps = ("trainer.log_step_interval=1", "trainer.save_step_interval=15", "trainer.lr=1e-2")
    done(capsys, "train", "model=spikegpt", "name=straight", *small, *text, *steps)
    done(capsys, "train", "resume=straight:iter-15-ckpt", "name=again", *text, *steps)
    straight, again = (darkit.load(name) for name in ("straight", "again"))
    log = straight.log()
    assert log["train_loss"][-1] < log["train_loss"][0] - 1
    for column in ("firing_rate", "firing_rate_blocks.0.mixing_neurons", "dead_blocks.1.feeding_neurons"):
        assert log[column].drop_nulls().is_between(0, 1).to_list() == [True]
    assert 0 < log["synops"].drop_nulls()[-1] < log["synops_dense"].drop_nulls()[-1]
    assert again.status == "finished"
    done(capsys, "train", "resume=straight:iter-15-ckpt", *text, *steps)
    assert straight.log()["train_loss"].to_list() == log["train_loss"].to_list()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number, at least 1, not 0"),
        ({"hidden_size": 2.5}, "hidden_size must be a whole number, at least 1, not 2.5"),
        ({"beta": 1.0}, "beta must be a number from 0 to below 1, not 1.0"),
        ({"threshold": 0}, "threshold must be a number above 0, not 0"),
        ({"tie_embeddings": 1}, "tie_embeddings must be true or false, not 1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SpikeGPTConfig(**changes)
