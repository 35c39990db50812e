"""Linear layers laid out for one row: where they are, and that their weights are always the present ones."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darkit.models.gpt import GPT, GPTConfig
from darkit.models.laid_out import LaidOut
from darkit.prediction.text.language import make_reader

ROWS = 12  # enough for layers to be laid out


def copies(linear: LaidOut) -> list[Tensor]:
    return [weight for _, weight in linear._copies.values()]


def fed(linear: LaidOut, *layers: nn.Module, rows: int = 1) -> Tensor:
    """Compute some rows and return the last outputs."""
    hidden = torch.randn(rows, 1, layers[0].in_features, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for _ in range(ROWS):
            found = linear(hidden, *layers)
        torch.testing.assert_close(found, torch.cat([layer(hidden) for layer in layers], dim=-1))
    return found


def test_layers_that_widen_are_laid_out_once_and_those_that_narrow_never() -> None:
    linear = LaidOut()
    query, key, up, down = nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False), nn.Linear(8, 32), nn.Linear(32, 8)
    fed(linear, query, key)
    fed(linear, up)
    fed(linear, down)
    joined, widening = copies(linear)
    assert joined.shape == (12, 8)
    assert widening.shape == (32, 8)
    assert joined.t().is_contiguous()
    assert widening.t().is_contiguous()
    fed(linear, up)
    assert copies(linear)[1] is widening


def test_the_first_rows_pay_for_no_copy() -> None:
    linear, layer = LaidOut(), nn.Linear(8, 32)
    with torch.inference_mode():
        for _ in range(ROWS // 2):
            linear(torch.zeros(1, 1, 8), layer)
    assert not copies(linear)


def hooked(layer: nn.Linear) -> nn.Module:
    layer.register_forward_hook(lambda module, given, output: 2 * output)
    return layer


def patched(layer: nn.Linear) -> nn.Module:
    own = layer.forward
    layer.forward = lambda hidden: 2 * own(hidden)  # type: ignore[method-assign]  # as adapters do
    return layer


def adapted(layer: nn.Linear) -> nn.Module:
    class Adapted(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            return 2 * super().forward(hidden)

    layer.__class__ = Adapted
    return layer


def quantized(layer: nn.Linear) -> nn.Module:
    class Quantized(nn.Parameter):
        pass

    layer.weight.__class__ = Quantized
    return layer


def of_inference(layer: nn.Linear) -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(8, 32)


CHANGED: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "hooked": hooked,
    "patched": patched,
    "adapted": adapted,
    "parametrized": lambda layer: nn.utils.parametrizations.weight_norm(layer),
    "quantized": quantized,
    "without versions": of_inference,
    "in bfloat16": lambda layer: layer.bfloat16(),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_layer_that_is_more_than_its_weight_is_called(name: str) -> None:
    linear, layer = LaidOut(), CHANGED[name](nn.Linear(8, 32))
    hidden = torch.randn(1, 1, 8).to(layer.weight.dtype)
    with torch.inference_mode():
        for _ in range(ROWS):
            assert torch.equal(linear(hidden, layer), layer(hidden))
    assert not copies(linear)


def test_a_hook_that_comes_after_the_copy_is_heard() -> None:
    linear, layer = LaidOut(), nn.Linear(8, 32)
    before = fed(linear, layer)
    hooked(layer)
    torch.testing.assert_close(fed(linear, layer), 2 * before)


def test_several_rows_and_gradients_take_the_layers_themselves() -> None:
    linear, layer = LaidOut(), nn.Linear(8, 32)
    fed(linear, layer, rows=3)
    for _ in range(ROWS):
        linear(torch.zeros(1, 1, 8), layer).sum().backward()
    assert layer.weight.grad is not None
    assert not copies(linear)


def in_place(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def by_an_optimizer(layer: nn.Linear) -> None:
    layer.weight.grad = torch.ones_like(layer.weight)
    torch.optim.AdamW(layer.parameters(), lr=0.5, fused=True).step()


def by_data(layer: nn.Linear) -> None:
    layer.weight.data = 2 * layer.weight.data


def by_another(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(2 * layer.weight.detach())


def by_a_checkpoint(layer: nn.Linear) -> None:
    layer.load_state_dict({key: 2 * value for key, value in layer.state_dict().items()})


@pytest.mark.parametrize("change", [in_place, by_an_optimizer, by_data, by_another, by_a_checkpoint])
def test_weights_that_change_after_the_copy_are_the_ones_that_compute(change: Callable[[nn.Linear], None]) -> None:
    linear, layer = LaidOut(), nn.Linear(8, 32)
    before = fed(linear, layer)
    (old,) = copies(linear)
    change(layer)
    assert not torch.equal(fed(linear, layer), before)
    (new,) = copies(linear)
    assert new is not old


def model(**settings: Any) -> GPT:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "context_length": 64, "num_layers": 2, "num_heads": 4, "hidden_size": 32}
    made = GPT(GPTConfig(**sizes | settings)).eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    return made


def greedy(made: GPT, *, use_cache: bool = True) -> list[int]:
    reader, ids = make_reader(made, use_cache=use_cache), [1, 2, 3]
    for _ in range(40):
        ids.append(int(reader(ids).argmax()))
    return ids


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 2}, {"positions": "learned", "norm": "layer"}])
def test_a_generation_lays_out_all_but_what_narrows_and_chooses_the_tokens_of_one_without(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, caches = model(**settings), []
    make = GPT.make_cache

    def kept(self: GPT, batch_size: int = 1) -> Any:
        caches.append(make(self, batch_size))
        return caches[-1]

    monkeypatch.setattr(GPT, "make_cache", kept)
    assert greedy(made) == greedy(made, use_cache=False)
    linear = next(cache.linear for cache in caches if copies(cache.linear))
    assert len(copies(linear)) == 3 * 2 + 1  # queries with keys and values, output and up of each layer, and the head


def test_a_weight_that_changes_between_two_generations_is_the_one_that_computes() -> None:
    made = model()
    first = greedy(made)
    for parameter in (made.blocks[1].up.weight, made.blocks[0].attention.query.weight):
        parameter.data.neg_()  # which no version tells
    second = greedy(made)
    assert second != first
    assert second == greedy(made, use_cache=False)


def test_the_copies_go_with_the_cache() -> None:
    made = model()
    cache = made.make_cache()
    with torch.inference_mode():
        for token in range(ROWS):
            made(torch.tensor([[token]]), cache=cache)
    gone = [weakref.ref(weight) for weight in copies(cache.linear)]
    assert gone
    del cache
    gc.collect()
    assert not any(weight() is not None for weight in gone)
