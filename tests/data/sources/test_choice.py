"""What a choice of data gives, and which models take its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from darkit.data import DataChoice
from darkit.models.gpt import GPT, GPTConfig


class TakesTarget(nn.Module):
    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        return inputs


class Recurrent(nn.Module):
    def forward(self, y: Tensor, hidden: Tensor | None = None) -> Tensor:
        return y


def test_a_model_that_asks_for_no_target_takes_the_datas_loss() -> None:
    choice = DataChoice([], loss=F.mse_loss)
    for model in (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.LSTM(2, 2), Recurrent()):
        assert choice.loss_for(model) is F.mse_loss


def test_a_model_that_asks_for_the_target_makes_its_own_loss_of_it() -> None:
    choice = DataChoice([], loss=F.mse_loss)
    for model in (TakesTarget(), GPT(GPTConfig(num_layers=1))):
        assert choice.loss_for(model) is None


def test_data_alone_is_a_choice() -> None:
    choice = DataChoice([1, 2])
    assert (choice.train, choice.val, choice.tokenizer, choice.loss, choice.baselines) == ([1, 2], None, None, None, {})
    assert choice.loss_for(nn.Linear(2, 2)) is None
