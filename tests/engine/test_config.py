"""The trainer's config: every field refuses wrong values by name, value and expected form."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.engine.config import TrainerConfig, with_overrides
from darkit.errors import ConfigError, NameInvalidError
from darkit.runs.configs import public_values
from tests.engine.parts import made, run_names, train, xy

FIELDS = {field.name: field.default for field in dataclasses.fields(TrainerConfig)}
LEAST = {
    "device_num": 1,
    "num_nodes": 1,
    "max_step": 1,
    "batch_size": 1,
    "num_workers": 0,
    "warmup_step": 0,
    "gradient_accumulation_steps": 1,
    "eval_iters": 0,
    "eval_step_interval": 0,
    "save_step_interval": 0,
    "keep_best": 0,
    "early_stop_patience": 0,
    "log_step_interval": 1,
    "raster_samples": 0,
    "seed": 0,
    "spike_window": 4,
    "spike_limit": 1,
}
NOT_NEGATIVE = ("lr", "weight_decay", "gradient_clip", "ema_decay", "mac_energy", "ac_energy", "peak_flops")
CHOICES = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"),
    "scheduler": ("constant", "linear", "cosine"),
    "keep_optimizer": ("all", "last"),
    "mode": ("auto", "min", "max"),
    "nan_policy": ("stop", "warn"),
    "spike_policy": ("none", "rewind"),
}
FLAGS = ("load_best_at_end", "tensorboard", "console", "deterministic", "compile", "reset_state")
MAYBE = ("keep_last", "max_epoch", "global_batch_size")
TEXTS = ("strategy", "optimizer", "monitor")


def test_these_tests_know_every_field() -> None:
    assert set(FIELDS) == {
        "name",
        "project",
        "betas",
        "fused",
        "spike_threshold",
        *MAYBE,
        *LEAST,
        *NOT_NEGATIVE,
        *CHOICES,
        *FLAGS,
        *TEXTS,
    }


@pytest.mark.parametrize(("field", "least"), LEAST.items())
def test_whole_numbers_have_a_least_value_and_no_other_type(field: str, least: int) -> None:
    assert getattr(TrainerConfig(**{field: least}), field) == least
    with pytest.raises(ConfigError, match=f"^{field} must be at least {least}, not {least - 1}.$"):
        TrainerConfig(**{field: least - 1})
    for wrong in (1.0, "1", None, True, [1]):
        with pytest.raises(ConfigError, match=f"^{field} must be a whole number, not "):
            TrainerConfig(**{field: wrong})


def test_keep_last_is_a_whole_number_from_one_or_none_for_all() -> None:
    assert TrainerConfig().keep_last is None
    assert TrainerConfig(keep_last=1).keep_last == 1
    with pytest.raises(ConfigError, match=r"^keep_last must be at least 1, not 0.$"):
        TrainerConfig(keep_last=0)
    for wrong in (1.0, "1", True, [1]):
        with pytest.raises(ConfigError, match=r"^keep_last must be a whole number or None, not "):
            TrainerConfig(keep_last=wrong)


@pytest.mark.parametrize("field", NOT_NEGATIVE)
def test_rates_are_numbers_from_zero_and_finite(field: str) -> None:
    assert getattr(TrainerConfig(**{field: 0}), field) == 0
    with pytest.raises(ConfigError, match=f"^{field} must be at least 0, not -0.1.$"):
        TrainerConfig(**{field: -0.1})
    for wrong in ("1e-3", None, False):
        with pytest.raises(ConfigError, match=f"^{field} must be a number, not "):
            TrainerConfig(**{field: wrong})
    for wrong in (math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"^{field} must be finite, not "):
            TrainerConfig(**{field: wrong})


@pytest.mark.parametrize(("field", "choices"), CHOICES.items())
def test_choices_are_listed_when_another_is_given(field: str, choices: tuple[str, ...]) -> None:
    for choice in choices:
        assert getattr(TrainerConfig(**{field: choice}), field) == choice
    with pytest.raises(ConfigError, match=f"^{field} must be one of {', '.join(choices)}, not 'other'.$"):
        TrainerConfig(**{field: "other"})
    with pytest.raises(ConfigError, match=f"^{field} must be text, not 3.$"):
        TrainerConfig(**{field: 3})


@pytest.mark.parametrize("field", FLAGS)
def test_flags_are_true_or_false(field: str) -> None:
    for wrong in (1, 0, "yes", None):
        with pytest.raises(ConfigError, match=f"^{field} must be true or false, not "):
            TrainerConfig(**{field: wrong})


@pytest.mark.parametrize("field", TEXTS)
def test_texts_are_text(field: str) -> None:
    for wrong in (1, None):
        with pytest.raises(ConfigError, match=f"^{field} must be text, not "):
            TrainerConfig(**{field: wrong})


@pytest.mark.parametrize(
    "wrong", [0.9, (0.9,), (0.9, 0.99, 0.999), "ab", (1.0, 0.9), (0.9, -0.1), None, (0.9, math.nan)]
)
def test_betas_are_two_numbers_below_one(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^betas must "):
        TrainerConfig(betas=wrong)


def test_the_decay_of_averaged_weights_is_below_one() -> None:
    assert TrainerConfig(ema_decay=0.999).ema_decay == 0.999
    with pytest.raises(ConfigError, match=r"^ema_decay must be below 1, not 1.$"):
        TrainerConfig(ema_decay=1)


def test_betas_from_a_file_become_a_tuple() -> None:
    assert TrainerConfig(betas=[0, 0.5]).betas == (0.0, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a/b", "..", "/tmp/x", "a\x00b", "x" * 101, ".hidden", " a", 3])
def test_a_name_that_is_none_is_refused_in_the_constructor(name: Any) -> None:
    with pytest.raises((NameInvalidError, ConfigError)):
        TrainerConfig(name=name)


@pytest.mark.parametrize("name", ["", "a/b", "..", "/tmp/x", "a\x00b", "x" * 101])
def test_fit_refuses_such_a_name_and_makes_nothing(name: str) -> None:
    with pytest.raises(NameInvalidError):
        train(made(), xy(), name=name)
    assert run_names() == []


def test_a_seed_too_large_for_torch_is_refused() -> None:
    assert TrainerConfig(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(ConfigError, match=r"^seed must be at most 9223372036854775807, not 9223372036854775808.$"):
        TrainerConfig(seed=2**63)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("max_stepz", "max_step"), ("learning_rat", "lr"), ("batchsize", "batch_size")]
)
def test_an_unknown_override_is_refused_by_name_with_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"Unknown setting {wrong!r}") as caught:
        train(made(), xy(), **{wrong: 3})
    if wrong != "learning_rat":
        assert f"Did you mean {meant!r}?" in str(caught.value)
    assert run_names() == []


def test_an_override_out_of_range_is_refused_and_the_config_stays() -> None:
    config = TrainerConfig(max_step=5)
    with pytest.raises(ConfigError, match="max_step must be at least 1, not 0"):
        train(made(), xy(), config=config, max_step=0)
    assert config.max_step == 5
    assert run_names() == []


def test_an_attribute_set_between_is_checked_before_the_run_starts() -> None:
    config = TrainerConfig(max_step=5)
    config.max_step = -1
    with pytest.raises(ConfigError, match="max_step must be at least 1, not -1"):
        train(made(), xy(), config=config)
    assert run_names() == []


def test_something_else_as_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="config must be a TrainerConfig, not dict"):
        train(made(), xy(), config={"max_step": 3})
    assert run_names() == []


def test_overrides_change_a_copy() -> None:
    config = TrainerConfig(max_step=5)
    changed = with_overrides(config, {"max_step": 7})
    assert (config.max_step, changed.max_step) == (5, 7)
    assert with_overrides(config, {}) is config


def test_a_subclass_gives_defaults_with_or_without_an_annotation_and_decorator() -> None:
    class Bare(TrainerConfig):
        lr = 0.5
        device = "cpu"
        comment = "mine"

    @dataclass
    class Decorated(TrainerConfig):
        lr = 0.25
        decay: float = 0.9

    assert (Bare().lr, Bare(lr=0.1).lr, Bare().device) == (0.5, 0.1, "cpu")
    assert (Decorated().lr, Decorated(decay=0.5, lr=0.1).decay) == (0.25, 0.5)
    exported = public_values(Bare(max_step=3))
    assert (exported["lr"], exported["device"], exported["comment"], exported["max_step"]) == (0.5, "cpu", "mine", 3)
    assert public_values(Decorated())["decay"] == 0.9
    assert TrainerConfig().lr == FIELDS["lr"]


def test_a_subclass_of_a_subclass_keeps_both_ones_defaults() -> None:
    class First(TrainerConfig):
        lr = 0.5

    class Second(First):
        max_step = 9

    assert (Second().lr, Second().max_step) == (0.5, 9)


def test_a_subclass_with_a_wrong_default_is_refused_when_it_is_made() -> None:
    class Wrong(TrainerConfig):
        max_step = 0

    with pytest.raises(ConfigError, match="max_step must be at least 1"):
        Wrong()


def test_an_unannotated_value_of_a_subclass_is_used_and_exported_by_a_run() -> None:
    class Mine(TrainerConfig):
        device = "cpu"
        lr = 0.125
        max_step = 3
        remark = "hello"

    run = train(made(), xy(), config=Mine(), max_step=3)
    assert run.trainer_config["lr"] == 0.125
    assert run.trainer_config["remark"] == "hello"
    assert run.log()["lr"].to_list() == [0.125] * 3


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON, max_size=3))
def test_any_value_is_accepted_unchanged_or_refused_in_one_sentence(values: dict[str, Any]) -> None:
    try:
        config = TrainerConfig(**values)
    except (ConfigError, NameInvalidError) as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        for key, value in values.items():
            assert getattr(config, key) == (tuple(value) if key == "betas" else value)


def test_a_config_needs_no_torch() -> None:
    code = "import sys, darkit.engine.config; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
