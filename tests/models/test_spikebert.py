"""The spiking masked-language model: ternary, bidirectional, blind to padding, and it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import darkit
from darkit.engine.spiking.receipt import Receipt, measure
from darkit.models.spikebert import ElasticNeurons, SpikeBERT, SpikeBERTConfig
from tests.cli.parts import done

SMALL = {"vocab_size": 60, "context_length": 20, "num_layers": 2, "num_heads": 2, "hidden_size": 16}


def made(**changes: Any) -> SpikeBERT:
    torch.manual_seed(0)
    return SpikeBERT(SpikeBERTConfig(**{**SMALL, "feed_forward_size": 32, **changes}))


def batch(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 60, (3, 20), generator=generator)
    labels = torch.where(torch.rand(3, 20, generator=generator) < 0.3, ids, -100)
    return {"input_ids": ids, "labels": labels, **more}


def test_spikes_are_ternary_and_of_one_amplitude() -> None:
    neurons = ElasticNeurons(0.5, 0.7)
    torch.nn.init.constant_(neurons.amplitude, 0.3)
    spikes = neurons(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)))
    assert [round(value, 4) for value in spikes.unique().tolist()] == [-0.3, 0.0, 0.3]


def test_a_neuron_integrates_leaks_and_is_set_back_by_its_spike() -> None:
    neurons = ElasticNeurons(0.5, 1.0)
    spikes = neurons(torch.full((4, 1), 0.8))
    # 0.8; 0.4 + 0.8 = 1.2 fires; (1.2 - 1) / 2 + 0.8 = 0.9; 0.45 + 0.8 = 1.25 fires
    assert spikes.flatten().tolist() == [0.0, 1.0, 0.0, 1.0]
    assert neurons(torch.full((4, 1), -0.8)).flatten().tolist() == [0.0, -1.0, 0.0, -1.0]


def test_every_parameter_learns() -> None:
    model = made()
    label = torch.tensor([0, 1, 1])
    model(**batch(next_sentence_label=label, token_type_ids=torch.ones(3, 20).long()))["loss"].backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == []


def test_without_pairs_every_parameter_has_a_gradient_still_as_several_devices_need_it() -> None:
    model = made()
    model(**batch(token_type_ids=torch.ones(3, 20).long()))["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not model.next_sentence.weight.grad.any()


def test_it_sees_both_ways_but_no_padding() -> None:
    model = made().eval()
    given = batch()
    mask = torch.ones(3, 20).long()
    mask[:, 15:] = 0
    other = given["input_ids"].clone()
    other[:, 16] = (other[:, 16] + 1) % 60
    with torch.inference_mode():
        seen = [model(ids)["logits"][:, 3] for ids in (given["input_ids"], other)]
        masked = [model(ids, mask)["logits"][:, :15] for ids in (given["input_ids"], other)]
        short = model(given["input_ids"][:, :15])["logits"]
    assert not torch.allclose(*seen)
    torch.testing.assert_close(*masked)
    torch.testing.assert_close(masked[0], short, rtol=1e-4, atol=1e-5)


def test_the_loss_is_of_what_is_asked_for_and_of_the_next_sentence() -> None:
    model = made().eval()
    given = batch()
    label = torch.tensor([0, 1, 1])
    found = model(**given)
    asked = given["labels"] >= 0
    wanted = torch.nn.functional.cross_entropy(found["logits"][asked], given["labels"][asked])
    assert found["loss"].item() == pytest.approx(wanted.item())
    both = model(**given, next_sentence_label=label)
    more = torch.nn.functional.cross_entropy(both["next_sentence_logits"], label)
    assert both["loss"].item() == pytest.approx((wanted + more).item())
    assert "loss" not in model(given["input_ids"])


def test_every_step_of_time_is_counted() -> None:
    given = {**batch(), "labels": None}

    def receipt(**settings: Any) -> Receipt:
        model = made(**settings).eval()
        with torch.no_grad():
            _, found = measure(model, lambda: model(**given))
        assert found is not None
        return found

    silent, busy = receipt(threshold=1e6), receipt(threshold=1e-9, time_steps=3)
    assert {row["firing rate"] for row in silent.layers} == {0}
    assert [row["firing rate"] for row in busy.layers] == pytest.approx([1] * 8, abs=0.15)
    assert {row["time steps"] for row in busy.layers} == {3}
    key = "blocks.0.query_key_value"
    assert silent.synapses[key].accumulated == silent.synapses[key].multiplied == busy.synapses[key].multiplied == 0
    assert busy.synapses[key].dense == 3 * given["input_ids"].numel() * 3 * 16 * 16
    assert busy.synapses[key].accumulated == pytest.approx(busy.synapses[key].dense, rel=0.05)


def test_a_training_on_masked_text_logs_rates_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    small = ("model.config.num_layers=1", "model.config.hidden_size=32", "model.config.feed_forward_size=64")
    text = ("data.context_length=32", "data.vocab_size=300", "trainer.max_step=30", "trainer.eval_iters=2")
    done(
        capsys, "train", "model=spikebert", "name=run", *small, *text, "trainer.log_step_interval=1", "trainer.lr=1e-2"
    )
    log = darkit.load("run").log()
    loss = log["train_loss"]
    assert loss[-5:].mean() < loss[:5].mean() - 0.5  # the text comes with Python: each version has another one
    assert log["firing_rate"].drop_nulls().is_between(0, 1).to_list() == [True]
    assert log["firing_rate_blocks.0.neurons.3"].drop_nulls().len() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_steps": 0}, "time_steps must be a whole number, at least 1, not 0"),
        ({"num_heads": 3}, r"hidden_size \(16\) must be a multiple of num_heads \(3\)"),
        ({"beta": -0.1}, "beta must be a number from 0 to below 1, not -0.1"),
        ({"threshold": "x"}, "threshold must be a number above 0, not 'x'"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SpikeBERTConfig(**{**SMALL, **changes})


def test_more_tokens_than_the_context_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="21 tokens do not fit into a context of 20"):
        made()(torch.zeros(1, 21).long())
