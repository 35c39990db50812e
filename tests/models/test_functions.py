"""Functions with a backward pass of their own give the values and gradients of torch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from darkit.models import functions
from darkit.models.functions import as_pairs, cross_entropy, has_own_backward, is_plain, rms_norm, split_rotated
from darkit.models.gpt import GPT, GPTConfig

SMALL = {"vocab_size": 300, "context_length": 24, "num_layers": 2, "num_heads": 4, "hidden_size": 32}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_gradients(function: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
    """Return the outputs and the gradients of a weighted sum of them."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    total = sum((output * random(*output.shape, seed=7 + place)).sum() for place, output in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(total, leaves)]


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_norm_is_torchs() -> None:
    inputs = (random(3, 5, 8), random(8, seed=1))
    wanted = with_gradients(lambda values, weight: F.rms_norm(values, (8,), weight, 1e-6), *inputs)
    assert_same(with_gradients(lambda values, weight: rms_norm(values, weight, 1e-6), *inputs), wanted)


@pytest.mark.parametrize("ignored", [[], [0, 7, 299], list(range(299))])
def test_the_cross_entropy_is_torchs(ignored: list[int]) -> None:
    logits, targets = 4 * random(300, 11), torch.arange(300) % 11
    targets[ignored] = functions.IGNORED
    wanted = with_gradients(lambda values: F.cross_entropy(values, targets).reshape(1), logits)
    assert_same(with_gradients(lambda values: cross_entropy(values, targets).reshape(1), logits), wanted)
    logits.requires_grad_()
    cross_entropy(logits, targets).backward()  # its gradient is 1
    wanted = torch.autograd.grad(F.cross_entropy(logits, targets), logits)[0]
    torch.testing.assert_close(logits.grad, wanted, rtol=1e-12, atol=1e-15)


def test_a_loss_may_be_differentiated_twice_in_a_row_but_not_its_gradient() -> None:
    logits = random(4, 3).requires_grad_()
    loss = cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, logits, create_graph=True)


@pytest.mark.parametrize("target", [11, -1])
def test_a_target_out_of_range_is_refused_as_by_torch(target: int) -> None:
    with pytest.raises(IndexError, match=f"Target {target} is out of bounds"):
        cross_entropy(random(2, 11).requires_grad_(), torch.tensor([1, target]))


def test_without_a_target_the_loss_is_torchs() -> None:
    assert cross_entropy(random(2, 11).requires_grad_(), torch.full((2,), -100)).isnan()


def test_what_is_split_is_rotated_by_pairs() -> None:
    size, heads, groups = 6, 4, 2
    angles = random(5, size // 2)

    def wanted(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        parts = F.linear(hidden, weight).unflatten(-1, (-1, size)).transpose(1, 2)
        rotated = []
        for part in parts.split((heads, groups), dim=1):
            first, second = part.chunk(2, dim=-1)
            left, right = first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()
            rotated.append(torch.stack((left, right), -1).flatten(-2))  # pairs side by side
        return *rotated, parts[:, :groups]

    def found(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        whole = torch.cat((as_pairs(weight, size), weight[: groups * size]))
        projected = F.linear(hidden, whole).unflatten(-1, (-1, size))
        return split_rotated(projected, heads, groups, torch.polar(torch.ones_like(angles), angles))

    inputs = (random(2, 5, 7), random((heads + groups) * size, 7, seed=1))
    assert_same(with_gradients(found, *inputs), with_gradients(wanted, *inputs))


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_gpt_computes_the_same_with_torchs_own_parts(
    groups: int | None, norm: str, positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SMALL, num_kv_heads=groups, norm=norm, positions=positions)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    other = copy.deepcopy(model)
    for attention in (block.attention for block in other.blocks):
        attention.query.register_forward_hook(lambda layer, given, output: None)
    tokens = torch.randint(300, (2, 21), generator=torch.Generator().manual_seed(1))
    found = model(tokens[:, :-1], tokens[:, 1:])
    found[1].backward()
    with monkeypatch.context() as patched:
        for name in ("darkit.models.gpt.has_own_backward", "darkit.models.functions.has_own_backward"):
            patched.setattr(name, lambda values: False)
        wanted = other(tokens[:, :-1], tokens[:, 1:])
        wanted[1].backward()
    assert_same(list(found), list(wanted))
    assert_same([part.grad for part in model.parameters()], [part.grad for part in other.parameters()])


def test_a_layer_is_plain_until_something_changes_it() -> None:
    assert is_plain(nn.Linear(2, 2, bias=False))
    assert not is_plain(nn.Linear(2, 2))
    assert is_plain(nn.Linear(2, 2), biased=True)
    assert not is_plain(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2, bias=False)))
    hooked = nn.Linear(2, 2, bias=False)
    hooked.register_forward_pre_hook(lambda layer, given: None)
    assert not is_plain(hooked)
    handle = nn.modules.module.register_module_forward_hook(lambda layer, given, output: None)
    try:
        assert not is_plain(nn.Linear(2, 2, bias=False))
    finally:
        handle.remove()
    assert not is_plain(type("Adapted", (nn.Linear,), {})(2, 2, bias=False))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch's attention under vmap
def test_torch_keeps_what_it_does_well_or_alone_can_do() -> None:
    values = torch.zeros(2)
    assert has_own_backward(values)
    assert not has_own_backward(values.bfloat16())
    assert not has_own_backward(values.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not has_own_backward(values)
    model = GPT(GPTConfig(**SMALL))
    tokens = torch.zeros(3, 2, 4, dtype=torch.long)
    mapped = torch.vmap(lambda part: model(part, part)[1])(tokens)
    torch.testing.assert_close(mapped, torch.stack([model(part, part)[1] for part in tokens]))


class _Operations(TorchDispatchMode):
    """Count the operations that compute something in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not function.is_view:
            self.names.append(str(function.overloadpacket).removeprefix("aten."))
        return function(*args, **(kwargs or {}))


def test_a_step_passes_over_memory_only_as_often_as_it_must() -> None:
    counts = []
    for layers in (1, 2):
        model = GPT(GPTConfig(**SMALL | {"num_layers": layers}))
        tokens = torch.randint(300, (2, 25))
        with _Operations() as operations:
            model(tokens[:, :-1], tokens[:, 1:])[1].backward()
        counts.append(operations.names)
    products = [sum(name in ("mm", "addmm") for name in names) for names in counts]
    assert products[1] - products[0] == 4 * 3, "a product forwards and two backwards for each of four layers"
    assert len(counts[1]) - len(counts[0]) <= 80, "operations of a block, forwards and backwards"
    for name in ("pow", "neg", "_log_softmax", "slice_backward"):
        assert name not in counts[0]


def test_a_token_of_a_generation_copies_no_weights() -> None:
    model = GPT(GPTConfig(**SMALL)).eval()
    cache = model.make_cache()
    largest: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            if isinstance(output, Tensor) and not function.is_view:
                largest.append(output.numel())
            return output

    with torch.inference_mode(), Sizes():
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)
    assert max(largest) == SMALL["vocab_size"], "the logits"
    assert len(largest) <= 70


def test_gradients_of_any_layout_turn_back_as_dense_ones() -> None:
    projected = torch.randn(2, 5, 6, 8, dtype=torch.float64, requires_grad=True)
    rotations = torch.polar(torch.ones(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64))
    parts = functions.split_rotated(projected, 2, 2, rotations)
    dense = [torch.randn(part.shape, dtype=torch.float64) for part in parts]
    strided = [one.transpose(-1, -2).contiguous().transpose(-1, -2) for one in dense]
    expected, found = (torch.autograd.grad(parts, projected, some, retain_graph=True)[0] for some in (dense, strided))
    assert torch.equal(found, expected)
