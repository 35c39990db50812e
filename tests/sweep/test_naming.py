"""The names of a sweep's runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from darkit.runs.names import check_name
from darkit.sweep.naming import columns, short_keys, short_value, trial_name


def test_a_run_is_named_by_what_differs() -> None:
    values = {"lr": "0.0031622776601683794", "hidden_size": "64", "optimizer": "'ad am/w'"}
    assert trial_name("gpt", values, 3, lambda name: False) == "gpt-lr=0.003162-hidden_size=64-optimizer=ad-am-w"


def test_a_key_is_as_short_as_it_can_be_told_from_the_others() -> None:
    keys = ["trainer.lr", "model.config.size", "data.size", "+optimizer", "data"]
    assert short_keys(keys) == {
        "trainer.lr": "lr",
        "model.config.size": "config.size",
        "data.size": "data.size",
        "+optimizer": "optimizer",
        "data": "data",
    }


def test_a_setting_that_is_called_like_a_column_has_another_column() -> None:
    keys = ["data.state", "+model.config.step", "runs", "trainer.lr"]
    assert columns(keys, ["state", "step", "runs"]) == {
        "data.state": "data.state",
        "+model.config.step": "model.config.step",
        "runs": "runs=",
        "trainer.lr": "lr",
    }


def test_a_name_that_is_taken_gets_a_number() -> None:
    taken = {"m-a=1", "m-a=1-2"}
    assert trial_name("m", {"a": "1"}, 0, taken.__contains__) == "m-a=1-3"


def test_numbers_are_short_and_whole_ones_whole() -> None:
    assert [short_value(text) for text in ("1e-05", "0.1", "123456789", "true", "[1,2]", "''")] == [
        *("1e-05", "0.1", "123456789", "true", "1-2", "empty")
    ]


@given(
    st.dictionaries(st.text(st.sampled_from("abc._"), min_size=1, max_size=30), st.text(max_size=60), max_size=8),
    st.integers(0, 10**6),
)
def test_every_name_is_valid_with_room_for_a_seed(values: dict[str, str], number: int) -> None:
    check_name(trial_name("m" * 60, values, number, lambda name: False) + "-seed=999")
