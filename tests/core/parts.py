"""Small models, trainers and a tokenizer that several tests of the guide's API share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.core import LogFieldnames, Trainer, TrainerConfig

STORY = "the ship sails over the sea, the sea is wide, the café by the sea is open — 海は広い。😀 " * 20


@dataclass
class NetConfig:
    """Sizes."""

    inputs: int = 4
    hidden: int = 8


class Net(nn.Module):
    """(batch, inputs) to (batch, 1)."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(config.inputs, config.hidden), nn.Tanh(), nn.Linear(config.hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@dataclass
class LoopConfig(TrainerConfig):
    """A short run on the CPU."""

    device: str = "cpu"
    batch_size: int = 4
    max_step: int = 6
    tensorboard: bool = False


class Loop(Trainer):
    """A hand-written loop as the guide has it: ``current_step`` counts from 0, and nothing stops it at ``max_step``."""

    def _get_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        self.optimizer = self._get_optimizer()
        for step, (x, y) in enumerate(DataLoader(train_dataset, batch_size=self.config.batch_size)):
            self.on_batch(step)
            loss = F.mse_loss(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.current_step = step
            self.on_step(step, loss)
            self._auto_save_pretrained()

    def on_batch(self, step: int) -> None:
        """For subclasses: before a step."""

    def on_step(self, step: int, loss: Tensor) -> None:
        """For subclasses: between a step and its save."""


def samples(count: int) -> TensorDataset:
    """A regression; the loops here take four samples a step."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def net(seed: int = 0) -> Net:
    """A network with known weights."""
    torch.manual_seed(seed)
    return Net(NetConfig())


def loop(cls: type[Any] = Loop, *, name: str = "hand", **settings: Any) -> Any:
    """A trainer of `net` with such a loop."""
    arguments = {key: settings.pop(key) for key in ("log_fieldnames", "loss", "resume") if key in settings}
    return cls(net(), LoopConfig(name=name, **settings), **arguments)


def saved(name: str = "hand") -> list[int]:
    """The steps that a run has checkpoints of."""
    return [checkpoint.step for checkpoint in darkit.load(name).checkpoints()]


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a run's log, without their times."""
    return [{key: value for key, value in row.items() if key != "time"} for row in darkit.load(name).log().to_dicts()]


class Logging(Loop):
    """Logs every step as the guide does: a row whose step counts from 0, and a loss that is a tensor."""

    def on_step(self, step: int, loss: Tensor) -> None:
        self.csv_logger.log(LogFieldnames(step=step, train_loss=loss))


def byte_tokenizer(vocabulary: int = 300) -> Tokenizer:
    """A byte-level BPE: every text has tokens, and a character of several bytes may have several of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([STORY], trainer)
    return tokenizer


@dataclass
class TalkerConfig:
    """Sizes."""

    vocabulary: int
    context_length: int = 16


class Talker(nn.Module):
    """A language model: (batch, time) tokens to (batch, time, vocabulary) logits, each from the token before alone."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.vocabulary)
        self.longest = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.longest = max(self.longest, tokens.shape[1])
        return self.table(tokens)


def reciting(tokenizer: Tokenizer, text: str) -> Talker:
    """A model that goes on with ``text``, whose tokens must be all different, and then with the first of them again."""
    ids = tokenizer.encode(text).ids
    assert len(set(ids)) == len(ids)
    model = Talker(TalkerConfig(tokenizer.get_vocab_size()))
    with torch.no_grad():
        model.table.weight.zero_()
        for token, following in zip(ids, [*ids[1:], ids[0]], strict=True):
            model.table.weight[token, following] = 50.0
    return model
