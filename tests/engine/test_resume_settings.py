"""The settings that a run may resume with, and the files that must exist."""

from __future__ import annotations

import functools
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.optim.lr_scheduler import (
    ExponentialLR,
    StepLR,
)

import darkit
from darkit.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
    ReproductionWarning,
    RunNotFoundError,
    StorageError,
)
from darkit.runs import Run
from tests.engine.parts import MLP, Numbers, equal_weights, made, run_names, train, xy
from tests.engine.resuming import (
    Dropping,
    break_off,
    run_one,
)


def adamw(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return functools.partial(torch.optim.AdamW, lr=0.01, **options)


MATHEMATICS = {
    "batch_size": 8,
    "lr": 0.5,
    "optimizer": "sgd",
    "weight_decay": 0.5,
    "betas": (0.5, 0.5),
    "scheduler": "cosine",
    "warmup_step": 2,
    "gradient_accumulation_steps": 2,
    "gradient_clip": 1.0,
    "precision": "64-true",
    "seed": 9,
}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, whose copies go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARWIN_KIT_HOME", str(tmp_path_factory.mktemp("short")))
        return run_one(xy, "run", max_step=3).path


@pytest.fixture
def run(short: Path, home: Path) -> Run:
    """A copy of it, in the home of this test."""
    shutil.copytree(short, home / "base" / "run")
    return darkit.load("run")


@pytest.mark.parametrize(("key", "value"), MATHEMATICS.items())
def test_a_setting_that_changes_the_mathematics_is_refused_by_its_values(run: Run, key: str, value: Any) -> None:
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    now = list(value) if isinstance(value, tuple) else value
    said = f"The run 'run' was trained with other settings: {key} .* -> {re.escape(repr(now))}. Give the"
    with pytest.raises(ConfigError, match=said):
        run_one(xy, "run", resume=True, max_step=5, **{key: value})
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_every_difference_is_listed_at_once_and_what_changes_nothing_is_allowed(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"other settings: batch_size 4 -> 8, lr 0\.001 -> 0\.5, seed 3 -> 1\. Give"):
        run_one(xy, "run", resume=True, max_step=5, lr=0.5, batch_size=8, seed=1, log_step_interval=2)
    run_one(xy, "run", resume=True, max_step=5, log_step_interval=2, keep_last=2)
    changes = run.info["continued"][0]["changes"]
    assert changes == {"log_step_interval": [1, 2], "keep_last": [None, 2]}
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [4, 5]


def test_another_config_of_the_model_is_refused() -> None:
    train(made(MLP), xy(), name="run", max_step=2)
    with pytest.raises(ConfigError, match=r"other settings: model\.hidden 8 -> 5\. Give"):
        train(made(MLP, hidden=5), xy(), name="run", resume=True, max_step=4)
    with pytest.raises(CheckpointMismatchError, match=r"does not fit this tests\.engine\.parts\.MLP"):
        train(made(MLP, hidden=5), xy(), name="run", resume=True, max_step=4, resume_overrides=True)


def rates(run: Run) -> list[float]:
    return run.log()["lr"].to_list()


@pytest.mark.parametrize("name", ["trainer_config.json", "config.json"])
def test_a_run_whose_settings_cannot_be_read_is_resumed_only_where_that_is_allowed(run: Run, name: str) -> None:
    (run.path / name).write_text('{"lr": 0.')
    with pytest.raises(ConfigError, match=rf"its {re.escape(name)} cannot be read .*resume_overrides=true resumes"):
        run_one(xy, "run", resume=True, max_step=4)
    assert run_one(xy, "run", resume=True, max_step=4, resume_overrides=True).status == "finished"


def test_a_new_rate_of_ones_own_optimizer_is_warned_of_each_time_or_holds() -> None:
    run_one(xy, "own", max_step=3, optimizer=adamw())
    faster = functools.partial(torch.optim.AdamW, lr=0.5)
    for end in (5, 6):
        with pytest.warns(
            ReproductionWarning, match=r"optimizer\.lr 0\.01 -> 0\.5 has no effect; resume_overrides=true"
        ):
            run = run_one(xy, "own", resume=True, max_step=end, optimizer=faster)
    assert rates(run) == [0.01] * 6
    run_one(xy, "own", resume=True, max_step=7, optimizer=adamw())
    run_one(xy, "own", resume=True, max_step=8, optimizer=faster, resume_overrides=True)
    assert run.info["continued"][-1]["changes"] == {"optimizer.lr": [0.01, 0.5]}
    run_one(xy, "own", resume=True, max_step=9, optimizer=faster)
    assert rates(run) == [0.01] * 7 + [0.5] * 2


def test_a_new_learning_rate_really_holds_without_a_schedule(run: Run) -> None:
    run_one(xy, "run", resume=True, max_step=5, lr=0.5, resume_overrides=True)
    assert rates(run) == [0.001] * 3 + [0.5] * 2


@pytest.mark.parametrize("options", [{"scheduler": "cosine"}, {"scheduler": "linear", "warmup_step": 2}])
def test_a_new_learning_rate_really_holds_in_the_schedule(options: dict[str, Any]) -> None:
    straight = run_one(xy, "straight", **options)
    name = break_off(straight, 4)
    run_one(xy, name, resume=True, lr=0.01, resume_overrides=True, **options)
    expected = [rate * (10 if step > 4 else 1) for step, rate in enumerate(rates(straight), 1)]
    assert rates(darkit.load(name)) == pytest.approx(expected, rel=1e-12)


def test_a_new_learning_rate_applies_to_a_user_schedule() -> None:
    options = {"scheduler": lambda optimizer: ExponentialLR(optimizer, 0.5), "optimizer": "sgd"}
    straight = run_one(xy, "straight", **options)
    name = break_off(straight, 4)
    run_one(xy, name, resume=True, lr=0.01, resume_overrides=True, **options)
    expected = [rate * (10 if step > 4 else 1) for step, rate in enumerate(rates(straight), 1)]
    assert rates(darkit.load(name)) == pytest.approx(expected, rel=1e-12)


def test_a_schedule_that_is_new_begins_where_the_run_is_and_one_that_is_gone_leaves_the_rate() -> None:
    constant, cosine = run_one(xy, "constant"), run_one(xy, "cosine", scheduler="cosine")
    one, other = break_off(constant, 4), break_off(cosine, 4)
    run_one(xy, one, resume=True, scheduler="cosine", resume_overrides=True)
    assert rates(darkit.load(one)) == rates(constant)[:4] + rates(cosine)[4:]
    run_one(xy, other, resume=True, resume_overrides=True)
    assert rates(darkit.load(other)) == rates(cosine)[:4] + rates(constant)[4:]


def test_a_larger_max_step_lengthens_the_schedule_from_the_first_step_on() -> None:
    long = run_one(xy, "long", scheduler="cosine", max_step=8)
    run_one(xy, "grown", scheduler="cosine", max_step=4)
    grown = run_one(xy, "grown", resume=True, scheduler="cosine", max_step=8)
    assert rates(grown)[4:] == rates(long)[4:]


def test_other_settings_of_the_optimizer_really_hold(run: Run) -> None:
    seen: list[Any] = []

    class Looking(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            seen.append(trainer.optimizers[0])

    options: dict[str, Any] = {"resume": True, "resume_overrides": True, "callbacks": lambda: [Looking()]}
    run_one(xy, "run", max_step=4, weight_decay=0.5, betas=(0.5, 0.6), **options)
    group = seen[0].param_groups[0]
    assert (group["weight_decay"], tuple(group["betas"]), group["lr"]) == (0.5, (0.5, 0.6), 0.001)
    assert len(seen[0].state) == len(group["params"])


def test_another_optimizer_starts_without_a_state_where_that_is_allowed(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run_one(xy, "run", resume=True, max_step=5, optimizer="sgd", lr=0.5, resume_overrides=True)
    assert "The optimizer starts without a state: the checkpoint has none of its class." in caplog.messages
    assert rates(run) == [0.001] * 3 + [0.5] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": functools.partial(torch.optim.SGD, lr=0.1)}, "optimizer is another than this SGD"),
        (
            {"optimizer": lambda parameters: torch.optim.AdamW([{"params": [p]} for p in parameters])},
            "optimizer is another than this AdamW",
        ),
        ({"optimizer": lambda parameters: torch.optim.AdamW(parameters[:2])}, "does not fit this AdamW"),
    ],
)
def test_another_user_optimizer_is_refused(run: Run, options: Any, said: str) -> None:
    with pytest.raises(CheckpointMismatchError, match=said):
        run_one(xy, "run", resume=True, max_step=5, **options)
    with pytest.raises(CheckpointMismatchError, match=said):
        run_one(xy, "run", resume=True, max_step=5, resume_overrides=True, **options)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1, 2, 3]


def test_another_user_schedule_is_refused() -> None:
    run_one(xy, "run", max_step=3, scheduler=lambda optimizer: StepLR(optimizer, 2))
    with pytest.raises(CheckpointMismatchError, match="schedule is another than this ExponentialLR: it has"):
        run_one(xy, "run", resume=True, max_step=5, scheduler=lambda optimizer: ExponentialLR(optimizer, 0.5))


def test_a_complete_run_needs_a_larger_max_step(run: Run) -> None:
    with pytest.raises(
        ConfigError, match=r"is at step 3 already\. To resume it, max_step must be larger than that, not 3"
    ):
        run_one(xy, "run", resume=True, max_step=3)
    assert run_one(xy, "run", resume=True, max_step=4).details.step == 4


@pytest.mark.parametrize(
    ("name", "resume", "error", "said"),
    [
        (None, True, ConfigError, "resume=True resumes the run called name=, but no name was given"),
        (None, "auto", ConfigError, "resume='auto' resumes the run called name="),
        ("nope", True, RunNotFoundError, "There is no run 'nope'"),
        (None, "nope", RunNotFoundError, "There is no run 'nope'"),
        (None, "run:iter-9-ckpt", CheckpointNotFoundError, "no checkpoint 'iter-9-ckpt'"),
    ],
)
def test_a_missing_run_or_checkpoint_is_named_and_nothing_is_created(
    run: Run, name: str | None, resume: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run_one(xy, name, resume=resume, max_step=5)
    assert run_names() == ["run"]


def test_a_damaged_latest_is_skipped_with_a_warning_and_a_requested_damaged_one_is_refused(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.path / "iter-3-ckpt.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointCorruptError, match="sha256"):
        run_one(xy, None, resume="run:iter-3-ckpt", max_step=5)
    with caplog.at_level(logging.WARNING):
        run_one(xy, "run", resume=True, max_step=5)
    assert any("iter-3-ckpt" in text and "sha256" in text for text in caplog.messages)
    assert run.info["continued"][0]["after_step"] == 2
    assert (run.path / "superseded" / "iter-3-ckpt.pth").read_bytes() == bytes(data)
    assert run.log()["step"].to_list() == [1, 2, 3, 4, 5]


def test_what_a_killed_writer_left_is_removed(run: Run) -> None:
    left = run.path / ".iter-4-ckpt.pth.tmp-1-2"
    left.write_bytes(b"half")
    run_one(xy, "run", resume=True, max_step=4)
    assert not left.exists()


def test_two_runs_from_one_checkpoint_do_not_share_their_models(run: Run) -> None:
    one, other = Dropping(), Dropping()
    for model in (one, other):
        train(model, Numbers(), resume="run", name=f"run-{id(model)}", max_step=2, eval_step_interval=0)
    assert equal_weights(one, other)
    assert one.layers[0].weight.data_ptr() != other.layers[0].weight.data_ptr()


@pytest.mark.parametrize("resume", [True, "auto", "run"])
@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        "tensorboard",
        "train_log.csv",
        "status.json",
        "notes.json",
        "run.json",
        "iter-3-ckpt.json",
        "iter-9-ckpt.pth",
    ],
)
def test_a_copied_run_with_a_link_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, name: str, resume: bool | str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = run.path / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(StorageError, match=rf"{name} is a link; darkit does not write through it\. Remove it\.$"):
        run_one(xy, "run", resume=resume, max_step=5)
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before
    assert not list(outside.iterdir())
