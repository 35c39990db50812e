"""Resuming is exact from any step and with any data; other settings are recorded or refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

from darkit.errors import CheckpointNotFoundError, ConfigError, ReproductionWarning
from darkit.runs import base
from tests.engine.parts import MLP, train, weights_at, xy
from tests.engine.resuming import (
    STEPS,
    Augmented,
    Continuing,
    Dropping,
    Epochs,
    Held,
    OwnSampler,
    Shuffled,
    assert_same,
    break_off,
    run_one,
    shuffling,
)


def adamw(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return functools.partial(torch.optim.AdamW, lr=0.01, **options)


def warm(optimizer: torch.optim.Optimizer) -> SequentialLR:
    parts = [LinearLR(optimizer, total_iters=3), CosineAnnealingLR(optimizer, 8)]
    return SequentialLR(optimizer, parts, milestones=[3])


ANY = (4, 5, 6)  # of 4 or of 3 batches an epoch: its end, and within
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tensors": (xy, {}),
    "last batch not full": (lambda: xy(14), {}),
    "list": (lambda: list(zip(*xy(), strict=True)), {}),
    "augmented": (Augmented, {}),
    "workers": (Augmented, {"num_workers": 2}),
    "shuffling loader": (shuffling, {}),
    "sequential loader": (lambda: DataLoader(Augmented(), batch_size=6), {}),
    "dropping loader": (lambda: shuffling(drop_last=True), {}),
    "shuffling loader with workers": (lambda: shuffling(num_workers=2), {}),
    "loader with a generator": (lambda: shuffling(generator=torch.Generator().manual_seed(8)), {}),
    "sampler": (lambda: DataLoader(Augmented(), batch_size=6, sampler=OwnSampler()), {}),
    "sampler with workers": (lambda: DataLoader(Augmented(), batch_size=6, sampler=OwnSampler(), num_workers=2), {}),
    "stream": (Shuffled, {}),
    "stream with workers": (Shuffled, {"num_workers": 2}),
    "stream with a state": (Continuing, {}),
    "sized stream with a state": (lambda: Continuing(sized=True), {}),
    "loader of a stream with a state": (lambda: DataLoader(Continuing(), batch_size=6), {}),
    "accumulation": (Augmented, {"gradient_accumulation_steps": 3}),
    "accumulation of a stream": (Shuffled, {"gradient_accumulation_steps": 3}),
    "clipping": (xy, {"gradient_clip": 0.1}),
    "mixed precision": (xy, {"precision": "bf16-mixed"}),
    "evaluation": (lambda: {"train": Augmented(), "val": xy()}, {"eval_step_interval": 2}),
    "warm-up and cosine": (xy, {"scheduler": "cosine", "warmup_step": 3}),
    "linear": (xy, {"scheduler": "linear", "optimizer": "sgd"}),
    "optimizer of one's own": (xy, {"optimizer": adamw(amsgrad=True)}),
    "callbacks": (Augmented, {"callbacks": lambda: [Epochs()]}),
    "callbacks of a stream": (Shuffled, {"callbacks": lambda: [Epochs()]}),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda optimizer: StepLR(optimizer, 2, 0.5),
    "MultiStepLR": lambda optimizer: MultiStepLR(optimizer, [2, 2, 7], 0.5),
    "ExponentialLR": lambda optimizer: ExponentialLR(optimizer, 0.9),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=20),
    "CyclicLR": lambda optimizer: CyclicLR(optimizer, 0.001, 0.1, step_size_up=2, cycle_momentum=False),
    "WarmRestarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 3),
    "SequentialLR": warm,
}


@pytest.mark.few(9)
@pytest.mark.parametrize("case", CASES)
def test_resuming_from_any_step_is_bit_for_bit_as_without_a_break(case: str) -> None:
    data, options = CASES[case]
    straight = run_one(data, "straight", **options)
    assert straight.details.step == STEPS
    for step in ANY:
        name = break_off(straight, step)
        assert_same(straight, run_one(data, name, resume=True, save_step_interval=0, **options))


@pytest.mark.few(3)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_goes_on_where_it_was(schedule: str) -> None:
    options = {"scheduler": SCHEDULES[schedule], "optimizer": adamw()}
    straight = run_one(xy, "straight", **options)
    for step in (1, 2, 5):
        name = break_off(straight, step)
        assert_same(straight, run_one(xy, name, resume=True, save_step_interval=0, **options))


def test_a_run_that_is_broken_off_after_every_step_ends_like_one_that_was_not() -> None:
    straight = run_one(Augmented, "straight", scheduler="cosine")
    name = break_off(straight, 1)
    for step in range(2, STEPS + 1):
        broken = run_one(
            Augmented, name, resume=True, scheduler="cosine", callbacks=lambda step=step: [StopAtBatch(step)]
        )
        assert broken.details.step == step
    assert_same(straight, broken)


def test_an_epoch_that_was_begun_is_not_begun_again_and_each_is_ended_once() -> None:
    straight = run_one(xy, "straight", callbacks=lambda: [Epochs()])
    for step in ANY:
        heard = Epochs()
        run_one(xy, break_off(straight, step), resume=True, save_step_interval=0, callbacks=lambda heard=heard: [heard])
        assert heard.heard == ["start 0", "end 0", "start 1", "end 1", "start 2", "end 2"]


class StopAt(lightning.Callback):
    """What people write to end a training early."""

    def __init__(self, step: int) -> None:
        self.step = step

    def look(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if trainer.global_step >= self.step:
            trainer.should_stop = True


class StopAtBatch(StopAt):
    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.look(trainer)


class StopAtEpoch(StopAt):
    def on_train_epoch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.look(trainer)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("stop", "data", "accumulate"),
    [
        (StopAtBatch, xy, 1),
        (StopAtBatch, xy, 3),
        (StopAtBatch, Shuffled, 1),
        (StopAtEpoch, xy, 1),
        (StopAtEpoch, xy, 2),
        (StopAtEpoch, Shuffled, 1),
    ],
)
def test_a_training_that_a_callback_ended_early_resumes_exactly(
    stop: type[StopAt], data: Callable[[], Any], accumulate: int
) -> None:
    options = {"gradient_accumulation_steps": accumulate, "save_step_interval": 0}
    straight = run_one(data, "straight", **options)
    for step in (2, 4) if stop is StopAtBatch else (2,):
        ended = run_one(data, f"ended-{step}", callbacks=lambda step=step: [stop(step)], **options)
        assert ended.status == "finished"
        assert step <= ended.details.step < STEPS
        assert ended.latest_checkpoint().step == ended.details.step
        assert_same(straight, run_one(data, ended.name, resume=True, **options))


def test_a_name_and_a_checkpoint_go_on_from_there_and_set_later_ones_aside_each_time() -> None:
    straight = run_one(xy, "run")
    for round_ in (1, 2):
        again = run_one(xy, None, resume="run:iter-3-ckpt")
        assert again == straight
        assert [checkpoint.step for checkpoint in again.checkpoints()] == list(range(1, STEPS + 1))
        aside = again.path / ("superseded" if round_ == 1 else "superseded-2")
        assert len(list(aside.glob("iter-*-ckpt.pth"))) == len(list(aside.glob("iter-*-ckpt.json"))) == STEPS - 3
    assert [entry["after_step"] for entry in straight.info["continued"]] == [3, 3]
    assert straight.log()["step"].to_list() == list(range(1, STEPS + 1))


@pytest.mark.parametrize("reference", ["run:iter-3-ckpt", "run"])
def test_another_name_starts_a_new_run_from_the_weights(reference: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_one(xy, "run", max_step=5)
    before = sorted(path.name for path in run.path.iterdir())
    capsys.readouterr()
    seen: list[Any] = []

    class Looking(lightning.Callback):
        def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            seen.append({key: value.clone() for key, value in pl_module.module.state_dict().items()})
            assert not trainer.optimizers[0].state

    new = run_one(xy, "new", resume=reference, max_step=2, callbacks=lambda: [Looking()])
    step = 3 if ":" in reference else 5
    assert f"Starting a new run from the weights of run:iter-{step}-ckpt." in capsys.readouterr().err
    weights = weights_at(run, step)
    assert all(torch.equal(weights[key], value) for key, value in seen[0].items())
    assert (new.details.step, new.log()["step"].to_list()) == (2, [1, 2])
    assert new.info["id"] != run.info["id"]
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_auto_starts_resumes_and_starts_again_if_nothing_was_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_one(xy, "auto", resume="auto", max_step=3).details.step == 3
    on = run_one(xy, "auto", resume="auto", max_step=5)
    assert "Resuming run 'auto' from step 3." in capsys.readouterr().err
    assert on.log()["step"].to_list() == [1, 2, 3, 4, 5]
    (base() / "killed").mkdir()
    with pytest.raises(CheckpointNotFoundError) as caught:
        run_one(xy, "killed", resume=True, max_step=2)
    assert caught.value.__notes__ == ["To start it again from step 0, set resume to 'auto' and name to 'killed'."]
    killed = run_one(xy, "killed", resume="auto", max_step=2)
    assert "Run 'killed' has no checkpoint yet; starting from step 0." in capsys.readouterr().err
    assert killed.info["model"]["class"] == "tests.engine.resuming.Dropping"
    assert killed.info["data"]["samples"] == 16
    assert "continued" not in killed.info
    assert killed.log()["step"].to_list() == [1, 2]


def test_a_run_without_a_checkpoint_starts_again_with_other_settings() -> None:
    options: dict[str, Any] = {"save_step_interval": 0, "max_step": 4}
    (saved,) = run_one(xy, "run", resume="auto", **options).checkpoints()
    saved.path.unlink()
    run = run_one(xy, "run", resume="auto", batch_size=8, **options)
    assert run.log()["step"].to_list() == [1, 2, 3, 4]
    assert (run.status, run.trainer_config["batch_size"]) == ("finished", 8)


def test_auto_on_a_finished_run_reports_it_and_loads_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_one(xy, "run", max_step=3)
    files = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    capsys.readouterr()
    model = Dropping()
    again = train(model, xy(), name="run", resume="auto", max_step=3, seed=3, optimizer="adamw")
    assert again == run
    assert "Run 'run' is complete at step 3; nothing to do." in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()} == files
    weights = weights_at(run, 3)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_changed_data_is_warned_of() -> None:
    train(MLP(), xy(), name="same", max_step=2)
    train(MLP(), xy(), name="same", max_step=4, resume=True)
    with pytest.warns(ReproductionWarning, match=r"The data differs from that of run 'same' before \(samples\)"):
        train(MLP(), xy(15), name="same", max_step=6, resume=True)


def test_another_tokenizer_than_the_runs_is_refused_and_the_runs_kept() -> None:
    mine, other = (Tokenizer(WordLevel({"[UNK]": 0, word: 1}, unk_token="[UNK]")) for word in ("mine", "other"))
    run = train(MLP(), xy(), name="run", max_step=2, tokenizer=mine)
    text = (run.path / "tokenizer.json").read_text()
    mine.enable_padding(length=7)
    train(MLP(), xy(), name="run", max_step=4, tokenizer=mine, resume=True)
    with pytest.raises(ConfigError, match=r"The run 'run' .*: tokenizer '\w{12}' -> '\w{12}'\."):
        train(MLP(), xy(), name="run", max_step=6, tokenizer=other, resume=True)
    assert run.details.step == 4
    assert Tokenizer.from_file(str(run.path / "tokenizer.json")).get_vocab() == Tokenizer.from_str(text).get_vocab()
    assert (
        train(MLP(), xy(), name="run", max_step=6, tokenizer=other, resume=True, resume_overrides=True).details.step
        == 6
    )


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.5}, {"name": "other"}])
def test_no_second_copy_of_the_weights_is_held_while_a_resumed_run_trains(options: dict[str, Any]) -> None:
    train(Dropping(), xy(), name="run", max_step=3, **{key: options[key] for key in options if key != "name"})
    held = Held()
    with held.watching():
        train(Dropping(), xy(), max_step=6, callbacks=[held], **({"name": "run"} | options), resume="run:latest")
    assert len(held.read) > 10
    assert set(held.left) == {0}
