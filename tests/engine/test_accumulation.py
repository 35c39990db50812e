"""A step of accumulated batches is the step of one large batch, whatever the batches are the means of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.engine.parts import LossMLP, equal_weights, made, train, xy


class Rows(Dataset[Any]):
    """Rows of tokens and labels of which so many are asked for."""

    def __init__(self, *asked: int, length: int = 22, named: bool = False) -> None:
        self.tokens = torch.randint(1, 5, (len(asked), length), generator=torch.Generator().manual_seed(0))
        self.labels = torch.stack(
            [row.where(torch.arange(length) < many, -100) for row, many in zip(self.tokens, asked, strict=True)]
        )
        self.named = named

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Any:
        row = {"input_ids": self.tokens[index], "labels": self.labels[index]}
        return row if self.named else tuple(row.values())


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Embedding(5, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.scores(tokens)  # type: ignore[no-any-return]


def entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), labels.flatten())


def step(model: nn.Module, data: Any, batches: int, size: int, **settings: Any) -> float:
    """Make one step of so many batches; return its loss."""
    loader = DataLoader(data, batch_size=None if isinstance(data, list) else size)
    plain = {"optimizer": "sgd", "lr": 0.5, "max_step": 1, "gradient_accumulation_steps": batches}
    return float(train(model, loader, **(plain | settings)).log()["train_loss"][0])


def check_equal(make: Any, one: Any, several: Any, **settings: Any) -> None:
    """Compare one large batch with several small ones: loss and weights."""
    ours, theirs = made(make), made(make)
    losses = step(ours, *several, **settings), step(theirs, *one, **settings)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_rows_with_two_and_twenty_targets() -> None:
    rows = Rows(2, 20)
    check_equal(Tagger, (rows, 1, 2), (rows, 2, 1), loss=entropy)


def test_steps_do_not_depend_on_those_before() -> None:
    rows = Rows(2, 20, 5, 1, 13, 4)
    check_equal(Tagger, (rows, 1, 2), (rows, 2, 1), loss=entropy, max_step=3)


def test_with_momentum_clipping_and_a_batch_in_which_nothing_is_asked_for() -> None:
    rows = Rows(0, 20, 1, 0, 7, 3)
    check_equal(Tagger, (rows, 1, 6), (rows, 6, 1), loss=entropy, optimizer="adamw", gradient_clip=0.1, lr=0.01)
    check_equal(Tagger, (rows, 1, 6), (rows, 3, 2), loss=entropy, gradient_clip=0.1)


def test_a_last_batch_that_is_smaller() -> None:
    x, y = xy(5)
    whole, parts = [(x, y)], [(x[:4], y[:4]), (x[4:], y[4:])]
    check_equal(LossMLP, (whole, 1, 0), (parts, 2, 0))


def test_batches_of_four_and_one_have_the_loss_of_five() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).mean()

    batches = [torch.full((4,), -1.25), torch.full((1,), -5.0)]
    model = Mean()
    assert step(model, batches, 2, 0, lr=1.0) == pytest.approx(-2.0)
    assert model.weight.item() == pytest.approx(3.0)


def test_over_the_end_of_an_epoch() -> None:
    x, y = xy(5)
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    check_equal(LossMLP, ([(torch.cat([x, x[:3]]), torch.cat([y, y[:3]]))], 1, 0), (batches, 3, 0))


def test_the_count_that_a_step_returns_is_used() -> None:
    class Says(Tagger):
        def training_step(self, batch: Any) -> dict[str, Any]:
            tokens, labels = batch
            asked = labels != -100
            each = F.cross_entropy(self(tokens).flatten(0, 1), labels.flatten(), reduction="none")
            return {"loss": (each.sum() / asked.sum()).square().sqrt(), "count": asked.sum()}

    rows = Rows(2, 20, 5)
    check_equal(Says, (rows, 1, 3), (rows, 3, 1))
    run = train(made(Says), DataLoader(rows), max_step=1, gradient_accumulation_steps=3)
    assert run.log()["count"].to_list() == [27]


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq", "classifier"])
def test_models_of_transformers(kind: str) -> None:
    import transformers

    small = {
        "vocab_size": 5,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    models: dict[str, Any] = {
        "causal": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**small)),
        "masked": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**small, **still)),
        "seq2seq": lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=5,
                d_model=8,
                d_kv=4,
                d_ff=8,
                num_layers=1,
                num_heads=2,
                dropout_rate=0.0,
                decoder_start_token_id=0,
            )
        ),
        "classifier": lambda: transformers.BertForTokenClassification(
            transformers.BertConfig(**small, **still, num_labels=5)
        ),
    }
    rows = Rows(2, 20, 9, named=True)

    def make() -> Any:
        return models[kind]().train()

    check_equal(make, (rows, 1, 3), (rows, 3, 1), lr=0.1)


def test_batches_of_equal_size_are_averaged_to_the_last_bit_as_ever() -> None:
    x, y = xy(12)
    ours, theirs = made(LossMLP), made(LossMLP)
    step(ours, [(x[first : first + 4], y[first : first + 4]) for first in (0, 4, 8)], 3, 0)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    for first in (0, 4, 8):
        (theirs(x[first : first + 4], y[first : first + 4])["loss"] / 3).backward()
    optimizer.step()
    assert equal_weights(ours, theirs)


@pytest.mark.parametrize("own", [False, True], ids=["compile=True", "compiled by its owner"])
def test_compiled_models_count_as_others_do(own: bool) -> None:
    rows = Rows(2, 20)
    with torch.compiler.set_stance("force_eager"):

        def make() -> Any:
            model = Tagger()
            if own:
                model.compile()
            return model

        check_equal(make, (rows, 1, 2), (rows, 2, 1), loss=entropy, compile=not own)
