"""Modules of other people go through `fit` untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import darkit
from darkit.core import Predicter
from darkit.errors import ReproductionWarning
from tests.engine.parts import equal_weights, hand_loop, made, train, weights_at


def gpt2() -> Any:
    """A transformers GPT-2 of two small layers, whose input and output embeddings are tied."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def tokens(count: int = 24) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 8, (count, 12), generator=generator)
    return [{"input_ids": row, "labels": row, "attention_mask": torch.ones(12, dtype=torch.long)} for row in ids]


def test_a_transformers_model_trains_on_dicts_by_its_own_loss_and_is_saved_evaluated_and_described() -> None:
    model = gpt2()
    run = train(model, tokens(), tokens(), max_step=30, eval_step_interval=10, lr=3e-3)
    log = run.log()
    losses = log.filter(log["val_loss"].is_not_null())["val_loss"].to_list()
    assert losses[-1] < losses[0] < 4.3
    described = run.info["model"]
    assert described.pop("generation")["bos_token_id"] == 50256
    assert described == {
        "class": "transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel",
        "config_kind": "transformers",
        "config_class": "transformers.models.gpt2.configuration_gpt2.GPT2Config",
    }
    assert (run.config["n_layer"], run.config["model_type"]) == (2, "gpt2")
    again = transformers.GPT2LMHeadModel(transformers.GPT2Config.from_dict(run.config))
    again.load_state_dict(weights_at(run, 30), strict=True)
    again.eval()
    model.eval()
    batch = torch.stack([sample["input_ids"] for sample in tokens(4)])
    with torch.inference_mode():
        assert torch.equal(again(batch).logits, model(batch).logits)


def test_a_transformers_model_gets_the_weights_of_a_plain_loop() -> None:
    ours, theirs = gpt2(), gpt2()
    loader = torch.utils.data.DataLoader(tokens(), batch_size=4)  # type: ignore[arg-type]
    train(ours, loader, optimizer=torch.optim.Adam, max_step=6, seed=4)
    batches = list(loader)  # a loader of one's own would draw from the generator
    torch.manual_seed(4)
    theirs.train()
    hand_loop(theirs, batches, torch.optim.Adam(theirs.parameters()), loss=lambda model, batch: model(**batch).loss)
    assert equal_weights(ours, theirs)


def test_a_tie_between_weights_holds_after_training_and_after_loading() -> None:
    model = gpt2()
    assert model.lm_head.weight is model.transformer.wte.weight
    before = model.lm_head.weight.clone()
    run = train(model, tokens(), max_step=5)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not torch.equal(model.lm_head.weight, before)
    saved = weights_at(run, 5)
    assert torch.equal(saved["lm_head.weight"], saved["transformer.wte.weight"])
    again = gpt2()
    again.load_state_dict(saved, strict=True)
    assert again.lm_head.weight is again.transformer.wte.weight
    with torch.no_grad():
        again.lm_head.weight.zero_()
    assert not again.transformer.wte.weight.any()


def test_a_tied_transformers_model_goes_on_from_its_checkpoint() -> None:
    train(gpt2(), tokens(), name="tied", max_step=6, save_step_interval=3)
    again = gpt2()
    run = train(again, tokens(), resume="tied:iter-3-ckpt", max_step=6)
    straight = gpt2()
    train(straight, tokens(), max_step=6)
    assert run.status == "finished"
    assert equal_weights(again, straight)
    assert again.lm_head.weight is again.transformer.wte.weight


class Tied(nn.Module):
    """A language model of one's own whose decoder is its embedding."""

    def __init__(self, size: int = 10) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(size, 8)
        self.decoder = nn.Linear(8, size, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.decoder(self.embedding(x)), y)


def test_a_tied_user_model_equals_a_plain_loop_and_loads_strictly() -> None:
    data = (torch.arange(16) % 10, (torch.arange(16) + 1) % 10)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=4)
    ours, theirs = made(Tied), made(Tied)
    run = train(ours, loader, optimizer=torch.optim.SGD, max_step=4)
    hand_loop(theirs, loader, torch.optim.SGD(theirs.parameters()), loss=lambda model, batch: model(*batch))
    assert equal_weights(ours, theirs)
    again = made(Tied, seed=9)
    again.load_state_dict(weights_at(run, 4), strict=True)
    assert equal_weights(ours, again)
    assert again.decoder.weight is again.embedding.weight


def last_step_error(outputs: Any, target: Tensor) -> Tensor:
    sequence, _ = outputs  # the other part is hidden state, for an LSTM itself a pair
    return F.mse_loss(sequence[:, -1].sum(1), target)


@pytest.mark.parametrize("make", [lambda: nn.LSTM(3, 8, batch_first=True), lambda: nn.GRU(3, 8, batch_first=True)])
def test_torchs_recurrent_networks_train_with_a_user_loss(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    torch.manual_seed(0)
    theirs = make()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(32, 5, 3, generator=generator)
    y = x[:, :, 0].sum(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    run = train(model, loader, (x, y), loss=last_step_error, optimizer=torch.optim.Adam, max_step=40)
    assert run.config["layer"] == type(model).__name__
    losses = run.log()["train_loss"].to_list()
    assert sum(losses[-4:]) < sum(losses[:4])
    epochs = list(loader) * 10
    hand_loop(
        theirs,
        epochs,
        torch.optim.Adam(theirs.parameters()),
        loss=lambda module, batch: last_step_error(module(batch[0]), batch[1]),
    )
    assert equal_weights(model, theirs)
    assert run.info["model"]["class"] == f"torch.nn.modules.rnn.{type(model).__name__}"
    type(model)(3, 8, batch_first=True).load_state_dict(weights_at(run, 40), strict=True)


def test_a_sequential_of_torchs_own_layers_trains() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(24, 3, 4), torch.arange(24) % 3
    run = train(model, (x, y), loss=nn.CrossEntropyLoss(), max_step=5)
    assert darkit.load(run.name).status == "finished"
    predicter = Predicter.from_pretrained(run.name, "cpu")
    assert torch.equal(predicter.predict(x), model.eval()(x))


def test_torchs_transformer_layer_with_dropout_trains() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x = torch.randn(16, 5, 8)
    with pytest.warns(ReproductionWarning):
        run = train(model, (x, x.mean(2)), loss=lambda out, target: F.mse_loss(out.mean(2), target), max_step=5)
    assert run.status == "finished"
