"""Operations of a forward pass: counted by hand, and as spikingjelly counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.spiking.operations import counting, is_spikes
from tests.engine.spiking import tutorials


def events(*shape: int, share: float = 0.3, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share).float()


@pytest.mark.parametrize(
    ("values", "are"),
    [
        (torch.tensor([0.0, 1.0]), True),
        (torch.tensor([-1.0, 0.0, 1.0]), True),
        (torch.tensor([0.0, 0.5, -0.5]), True),
        (torch.tensor([0.0, 0.5, 1.0]), False),
        (torch.tensor([True, False]), True),
        (torch.tensor([float("nan")]), False),
        (torch.zeros(0), True),
    ],
)
def test_spikes_are_zero_or_of_one_size(values: Tensor, are: bool) -> None:
    assert is_spikes(values) == are


def test_a_layer_pays_for_spikes_and_a_dense_one_for_all_inputs() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Flatten(), nn.Linear(3, 7, bias=False))
    x = events(4, 5)
    with counting(model) as found, torch.no_grad():
        model(x)
    assert set(found) == {"0", "2"}
    assert (found["0"].multiplied, found["0"].accumulated, found["0"].dense) == (0, int(x.sum()) * 3, 4 * 5 * 3)
    assert (found["2"].multiplied, found["2"].accumulated, found["2"].dense) == (4 * 3 * 7, 0, 4 * 3 * 7)


def brute(x: Tensor, layer: nn.Conv2d) -> int:
    """Let every spike alone through weights of one, and count the outputs that it reaches."""
    total = 0
    with torch.no_grad():
        for place in x.nonzero():
            alone = torch.zeros_like(x)
            alone[tuple(place)] = 1
            ones = torch.ones_like(layer.weight)
            reached = F.conv2d(alone, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            total += int(reached.sum())
    return total


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"padding": 1, "groups": 2}, {"dilation": 2, "padding": 2}])
def test_a_convolution_pays_for_every_weight_that_a_spike_meets(settings: dict[str, int]) -> None:
    layer = nn.Conv2d(2, 4, 3, **settings)
    x = events(2, 2, 6, 6)
    with counting(layer) as found, torch.no_grad():
        out = layer(x)
    (one,) = found.values()
    assert one.accumulated == brute(x, layer)
    assert one.dense == out.numel() * layer.weight[0].numel()
    with counting(layer) as found, torch.no_grad():
        layer(x + 0.5)
    assert next(iter(found.values())).multiplied == one.dense


class Functional(nn.Module):
    """Its weights are used without modules, by three kinds of product, and in attention."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x, self.weight) @ self.weight
        mixed = torch.bmm(x, x.transpose(1, 2)) @ hidden
        return mixed + F.scaled_dot_product_attention(*[mixed[:, None]] * 3)[:, 0]


def test_functions_are_counted_where_they_are_called() -> None:
    model = nn.Sequential(nn.Identity(), Functional())
    x = events(2, 4, 5)
    with counting(model) as found, torch.no_grad():
        model(x)
    (name,) = found
    assert name == "1"
    both = int((x @ x.transpose(1, 2)).sum())
    assert found[name].accumulated == int(x.sum()) * 5 + both
    assert found[name].multiplied == 2 * 4 * 5 * 5 + 2 * 4 * 4 * 5 + 2 * 4 * 4 * 5 * 2
    assert found[name].dense == found[name].multiplied + 2 * 4 * 5 * 5 + 2 * 4 * 4 * 5


@pytest.mark.parametrize("name", ["csnn", "convolutional", "feed forward"])
def test_the_counts_are_those_of_spikingjelly(name: str) -> None:
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter

    torch.manual_seed(0)
    model, x = {
        "csnn": lambda: (tutorials.csnn_of_spikingjelly(), 3 * tutorials.pictures(4)[0]),
        "convolutional": lambda: (tutorials.Convolutional(2), tutorials.movies(4)[0]),
        "feed forward": lambda: (tutorials.FeedForward(), 5 * tutorials.currents(4)[0]),
    }[name]()
    model.eval()
    products = {"mm", "addmm", "bmm", "baddbmm", "convolution"}
    with torch.no_grad():
        with counting(model) as found:
            model(x)
        functional.reset_net(model) if name == "csnn" else [
            part.reset_mem() for part in model.modules() if hasattr(part, "reset_mem")
        ]
        spikes, dense = SynOpCounter(), MACCounter()
        dense.rules = {rule: count for rule, count in dense.rules.items() if str(rule).split(".")[1] in products}
        with DispatchCounterMode([spikes, dense]):
            model(x)
    assert sum(one.accumulated for one in found.values()) == spikes.get_total() > 0
    assert sum(one.multiplied for one in found.values()) == dense.get_total()


def test_a_fused_recurrent_layer_counts_as_dense() -> None:
    model = nn.LSTM(5, 3, batch_first=True)
    with counting(model) as found, torch.no_grad():
        model(torch.randn(2, 4, 5))
    assert sum(one.dense for one in found.values()) == 2 * 4 * 4 * 3 * (5 + 3)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_products_of_every_kind_are_counted_in_every_mode(context: Any) -> None:
    """Linear, convolution and attention layers, and torch's functions, with what each is by hand: MACs."""
    x, y, vector = torch.randn(2, 3, 4), torch.randn(4, 5), torch.randn(4)
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    linear, convolution = nn.Linear(4, 5), nn.Conv1d(3, 2, 3)
    kinds: dict[str, tuple[Callable[[], Any], int]] = {
        "linear": (lambda: linear(x), 2 * 3 * 4 * 5),
        "linear of a vector": (lambda: F.linear(vector, y.T), 4 * 5),
        "convolution": (lambda: convolution(x), 2 * 2 * 2 * 3 * 3),
        "matmul": (lambda: x @ y, 2 * 3 * 4 * 5),
        "einsum": (lambda: torch.einsum("bsi,io->bso", x, y), 2 * 3 * 4 * 5),
        "addmv": (lambda: torch.addmv(torch.zeros(5), y.T, vector), 4 * 5),
        "dot": (lambda: torch.dot(vector, vector), 4),
        "addbmm": (lambda: torch.addbmm(torch.zeros(3, 5), x, y.expand(2, 4, 5)), 2 * 3 * 4 * 5),
        "in place": (lambda: torch.zeros(3, 5).addmm_(x[0], y), 3 * 4 * 5),
        "into a tensor": (lambda: torch.mm(x[0], y, out=torch.empty(3, 5)), 3 * 4 * 5),
        "sparse": (lambda: x[0].to_sparse() @ y, 3 * 4 * 5),
        "attention": (lambda: attention(x, x, x), 2 * 3 * (4 * 4 * 4 + 2 * 3 * 4)),
    }
    for name, (call, wanted) in kinds.items():
        with context(), counting(linear) as found:
            call()
        assert sum(one.multiplied for one in found.values()) == wanted, name


def test_a_product_without_a_rule_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Bilinear(4, 3, 2)
    for _ in range(2):
        with torch.no_grad(), counting(model) as found:
            model(events(5, 4), events(5, 3))
        assert found == {}
    assert caplog.messages == [
        "The operations and energy of Bilinear lack those of _trilinear, for which there is no rule."
    ]
