"""A run with `max_epoch` ends after that many epochs, or at `max_step` if that is earlier."""

from __future__ import annotations

from typing import Any

import pytest

from darkit.engine.config import TrainerConfig
from darkit.errors import ConfigError
from tests.core.parts import Loop, LoopConfig, net, samples
from tests.engine.parts import Stream, in_order, made, run_names, train, xy


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"max_epoch": 2, "max_step": 1000}, 8),
        ({"max_epoch": 2, "max_step": 5}, 5),
        ({"max_epoch": 300, "max_step": 3}, 3),
        ({"max_epoch": 1, "max_step": 1000, "gradient_accumulation_steps": 3}, 1),
        ({"max_epoch": 3, "max_step": 1000, "batch_size": 5}, 12),
    ],
)
def test_whichever_comes_first_ends_the_run_with_all_that_belongs_to_a_last_step(
    options: dict[str, Any], step: int
) -> None:
    run = train(made(), xy(), xy(), scheduler="linear", **options)
    assert (run.status, run.details.step, run.details.max_step) == ("finished", step, step)
    assert run.checkpoints()[-1].step == step
    assert run.log()["val_loss"].drop_nulls().len() == 1


def test_epochs_of_a_loader_and_of_a_config_count_as_well() -> None:
    config = TrainerConfig(max_epoch=2, device="cpu", tensorboard=False)
    assert train(made(), in_order(16, 4), config=config).details.step == 8
    assert (config.max_step, config.max_epoch) == (1000, 2)


def test_more_epochs_go_on_with_a_run() -> None:
    train(made(), xy(), name="run", max_epoch=1, max_step=1000)
    run = train(made(), xy(), name="run", resume=True, max_epoch=3, max_step=1000)
    assert (run.status, run.details.step) == ("finished", 12)


def test_data_without_countable_epochs_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_epoch=2 needs training data of known length; give max_step"):
        train(made(), Stream(16), max_epoch=2)
    with pytest.raises(ConfigError, match="max_epoch=1 has 4 batches, fewer than one step of"):
        train(made(), xy(), max_epoch=1, gradient_accumulation_steps=5)
    with pytest.raises(ConfigError, match="max_epoch must be at least 1"):
        train(made(), xy(), max_epoch=0)
    with pytest.raises(ConfigError, match=r"counted by darkit's own loop: Loop\.train\(\) counts steps"):
        Loop(net(), LoopConfig(name="hand", max_epoch=2)).train(samples(8))
    assert run_names() == []
