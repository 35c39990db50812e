"""How tokens are chosen, and settings that are refused."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkit.errors import ConfigError, ModelError
from darkit.prediction.text.sampling import Choice, Sampling

WEIGHTS = torch.tensor([0.5, 0.25, 0.15, 0.1])


def drawn(weights: torch.Tensor, count: int = 400, **settings: Any) -> Counter[int]:
    choose = Choice(Sampling(seed=0, **settings))
    return Counter(choose(weights.log()) for _ in range(count))


def test_tokens_are_as_frequent_as_the_model_says() -> None:
    found = drawn(WEIGHTS, 4000)
    assert [found[token] / 4000 for token in range(4)] == pytest.approx(WEIGHTS.tolist(), abs=0.03)


def test_a_temperature_sharpens_or_flattens() -> None:
    assert drawn(WEIGHTS, temperature=0.25)[0] > drawn(WEIGHTS)[0] > drawn(WEIGHTS, temperature=5.0)[0]
    assert set(drawn(WEIGHTS, temperature=0)) == set(drawn(WEIGHTS, temperature=1e-9)) == {0}


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {0}), (0.5, {0}), (0.6, {0, 1}), (0.8, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_takes_as_few_tokens_as_have_the_probability_together(top_p: float, kept: set[int]) -> None:
    assert set(drawn(WEIGHTS, top_p=top_p)) == kept
    order = torch.tensor([2, 0, 3, 1])
    assert {int(order[token]) for token in drawn(WEIGHTS[order], top_p=top_p)} == kept


def test_top_k_comes_before_top_p() -> None:
    assert set(drawn(WEIGHTS, top_k=2)) == {0, 1}
    assert set(drawn(WEIGHTS, top_k=2, top_p=0.66)) == {0}  # of the two, the first has two thirds
    assert set(drawn(WEIGHTS, top_k=2, top_p=0.67)) == {0, 1}


@given(
    logits=st.lists(st.floats(-(2.0**99), 2.0**99, width=32) | st.just(-math.inf), min_size=1, max_size=9),
    seed=st.integers(-(2**63), 2**64 - 1),
    temperature=st.floats(0, 1e300),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
)
def test_a_token_without_probability_is_never_chosen(
    logits: list[float], seed: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    settings = {"seed": seed, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    choose = Choice(Sampling(**settings))  # type: ignore[arg-type]
    if max(logits) == -math.inf:
        with pytest.raises(ModelError, match="not finite"):
            choose(torch.tensor(logits))
        return
    chosen = choose(torch.tensor(logits))
    assert logits[chosen] > -math.inf
    assert chosen == Choice(Sampling(**settings))(torch.tensor(logits))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_the_models_error(temperature: float) -> None:
    with pytest.raises(ModelError, match="logits are not finite"):
        Choice(Sampling(temperature=temperature))(torch.tensor([1.0, math.nan]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"max_new_tokens": "5"}, "max_new_tokens must be at least 1, not '5'"),
        ({"top_k": True}, "top_k must be at least 1, not True"),
        ({"temperature": math.inf}, "temperature must be finite and at least 0, not inf"),
        ({"temperature": -1}, "temperature must be finite"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
        ({"stop": [""]}, "A stop must be a text of at least one character, not ''"),
        ({"stop": [1]}, "not 1"),
        ({"seed": 2**64}, "seed must be a whole number"),
        ({"seed": "1"}, "seed must be a whole number"),
    ],
)
def test_settings_out_of_their_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", "\\(")):
        Sampling(**wrong)


def test_one_stop_may_be_given_without_a_list() -> None:
    assert Sampling(stop="ab").stop == ("ab",)
