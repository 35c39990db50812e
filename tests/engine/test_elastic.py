"""The same samples in every step on any number of processes, in one training and over several resumes."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

import darkit
from darkit.engine.callbacks.base import StepCallback
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.config import TrainerConfig
from darkit.engine.data.loaders import make_loaders
from darkit.engine.elastic import KeptSteps, keep_steps, set_global_batch
from darkit.engine.resume import find_resume
from darkit.errors import ConfigError
from darkit.runs import Run, base
from tests.children import Zygote
from tests.engine.native.modules import Base
from tests.engine.parts import Stream, made, train, xy
from tests.engine.ranks import Noting, Numbered, on_ranks, weights_of
from tests.engine.resuming import weighted

SETTINGS: dict[str, Any] = {
    "resume": "auto",
    "device": "cpu",
    "optimizer": "sgd",
    "lr": 0.1,
    "tensorboard": False,
    "log_step_interval": 1,
}


class Steps(StepCallback):
    """Notes the samples of each step in this process."""

    def __init__(self) -> None:
        self.ids: dict[int, list[int]] = {}

    def on_step(self, trainer: lightning.Trainer, pl_module: Any, outputs: dict[str, Any], step: int) -> None:
        batches = pl_module.module.ids
        self.ids[step] = [index for batch in batches for index in batch]
        batches.clear()


def case(name: str = "run", samples: int = 43, ranks: int = 1, **settings: Any) -> dict[str, Any]:
    """Train, or resume, and return the samples of each step and the weights."""
    model, steps = Noting(), Steps()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        darkit.fit(model, Numbered(samples), name=name, device_num=ranks, callbacks=[steps], **SETTINGS | settings)
    return {"ids": steps.ids, "weights": weights_of(model), "said": said.getvalue()}


def joined(found: list[dict[str, Any]]) -> dict[int, list[int]]:
    """Return the samples of each step of all processes, sorted."""
    return {step: sorted(index for one in found for index in one["ids"][step]) for step in found[0]["ids"]}


def test_resumes_on_1_2_4_and_1_processes_see_the_samples_and_end_with_the_weights_of_one(
    zygote: Zygote, tmp_path: Path
) -> None:
    """43 samples are five steps of 8 and one of 3; each resume is within an epoch."""
    straight = case(batch_size=8, max_step=16)
    expected = joined([straight])
    assert [len(expected[step]) for step in range(1, 14)] == [8, 8, 8, 8, 8, 3, 8, 8, 8, 8, 8, 3, 8]
    assert sorted(index for step in range(1, 7) for index in expected[step]) == list(range(43))
    assert expected[1] != expected[7]
    seen: dict[int, list[int]] = {}
    run = Run(tmp_path / "base" / "run")
    said = ""
    for ranks, last in ((1, 3), (2, 7), (4, 13), (1, 16)):
        # the batch size is the most that a process computes at once, so one process makes four batches of a step
        found = on_ranks(zygote, tmp_path, case, ranks=ranks, batch_size=2, global_batch_size=8, max_step=last)
        seen |= joined(found)
        said += found[0]["said"]
    assert set(seen) == set(expected)
    filled = seen.pop(12)  # 3 samples for four processes: one of them computes a sample that does not count
    assert (len(filled), set(filled)) == (4, set(expected.pop(12)))
    assert seen == expected
    place = read_run_checkpoint(run.path)[1]["position"]
    assert (place["epoch"], place["samples"], place["per_step"]) == (2, 32, 8)
    torch.testing.assert_close(found[0]["weights"], straight["weights"], rtol=1e-4, atol=1e-6)
    rows, oracle = run.log(), darkit.load("run").log()
    assert rows["train_loss"].to_list() == pytest.approx(oracle["train_loss"].to_list(), rel=1e-4)
    assert rows["epoch"].to_list() == oracle["epoch"].to_list()
    for was, now in (("one process", 2), ("2 processes", 4), ("4 processes", 1)):
        assert f"trained by {was} and continues on {now} with the same 8 samples in every step: sums are added" in said
    assert said.count("Further processes seed their generators with (seed, step, rank).") == 2


class Drawing(Noting):
    """Draws a random number for each batch, and notes it."""

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        self.ids.append(torch.randint(2**31, (1,)).tolist())
        return nn.functional.mse_loss(self.layers(batch["x"]), batch["y"])


def drawn(ranks: int) -> dict[str, Any]:
    """Train on two processes, in one go and resumed from a run of one process; return the numbers of this process."""
    found = {}
    for name in ("straight", "of-one"):
        steps = Steps()
        settings = SETTINGS | {"device_num": ranks, "global_batch_size": 8, "max_step": 4, "callbacks": [steps]}
        darkit.fit(Drawing(), Numbered(32), name=name, **settings)
        found[name] = steps.ids
    return found


def test_each_process_draws_its_own_random_numbers_and_new_ones_after_a_resume(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # as after lightning.seed_everything(0)
    homes = [tmp_path / "first", tmp_path / "second"]
    for home in homes:
        settings = SETTINGS | {"batch_size": 8, "max_step": 2, "name": "of-one"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DARWIN_KIT_HOME", str(home))
            darkit.fit(Drawing(), Numbered(32), **settings)
    first, second = (on_ranks(zygote, home, drawn) for home in homes)
    assert first == second
    numbers = [number for one in first for ids in one.values() for batch in ids.values() for number in batch]
    assert len(numbers) == 2 * 4 + 2 * 2
    # the resumed first process goes on where the one process was, as the first of two processes does
    assert len(set(numbers)) == len(numbers) - 2
    assert first[0]["of-one"] == {step: first[0]["straight"][step] for step in (3, 4)}


def batch_normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def kept(
    processes: int, data: Any = None, model: nn.Module | None = None, before: dict[str, Any] | None = None, **now: Any
) -> tuple[TrainerConfig, KeptSteps | None]:
    """Train two steps in one process, and ask what a resume on several processes keeps."""
    allowed, change = now.pop("allowed", False), now.pop("change", lambda content: None)
    data, settings = xy() if data is None else data, {"batch_size": 4} | (before or {})
    train(model or made(), data, name="run", max_step=2, **settings)
    config = TrainerConfig(name="run", device="cpu", device_num=processes, **{"batch_size": 4} | now)
    found = find_resume(base(), config, True)
    assert found is not None
    change(found.content)
    feed = make_loaders(data, None, config).train
    if feed.order is not None or processes == 1:
        feed.share(0, processes)
    return config, keep_steps(found, config, feed, model or made(), processes, allowed=allowed)


def test_a_run_whose_steps_can_be_cut_for_other_processes_keeps_them_without_being_told() -> None:
    for before, samples in (({}, 4), ({"gradient_accumulation_steps": 2}, 8), ({"global_batch_size": 8}, 8)):
        config, found = kept(2, before=before)
        assert found is not None
        assert (config.global_batch_size, config.gradient_accumulation_steps) == (samples, 1)
        assert f"trained by one process and continues on 2 with the same {samples} samples" in found.describe()
        shutil.rmtree(base() / "run")
    config, found = kept(1)
    assert (config.global_batch_size, found) == (None, None)


def test_one_process_keeps_the_global_batch_of_its_run() -> None:
    config, found = kept(1, before={"global_batch_size": 8, "batch_size": 4}, batch_size=2)
    assert config.global_batch_size == 8
    assert found is not None
    assert found.describe() == ""


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"before": {"gradient_accumulation_steps": 3}}, "a step may have samples of two epochs: resume it on one"),
        (
            {"data": weighted()},
            "because its data has its own order: resume it on one process, or",
        ),
        ({"global_batch_size": 6}, "trained in steps of 4 samples, but global_batch_size is 6: leave it out"),
        (
            {"before": {"gradient_accumulation_steps": 3}, "global_batch_size": 12},
            "trained in steps whose samples may be of two epochs, but global_batch_size is 12",
        ),
        (
            {"model": batch_normalized(), "before": {"loss": nn.functional.mse_loss}},
            "was trained on 4 samples at once, which would be 2: give a batch_size",
        ),
        ({"change": lambda content: content["position"].update(samples=3)}, "3 samples into its epoch, .* step of 4"),
    ],
)
def test_steps_that_cannot_be_kept_are_refused(case: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        kept(2, **case)
    assert "resume_overrides=true" in str(caught.value)


def test_other_steps_are_possible_when_they_may_differ() -> None:
    config, found = kept(2, before={"gradient_accumulation_steps": 3}, allowed=True)
    assert (config.global_batch_size, found) == (None, None)


def test_what_further_processes_counted_is_not_lost_in_silence() -> None:
    def change(content: dict[str, Any]) -> None:
        content["ranks"] = [{}, {"metrics": {"accuracy": {"updates": 1, "state": {}}}}]

    with pytest.raises(ConfigError, match=r"The torchmetrics object .* has values from 2 processes, which 1 cannot"):
        kept(1, change=change)


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({}, Stream(), "global_batch_size=8 needs data that darkit orders: give the dataset itself, map-style"),
        ({"global_batch_size": 1}, None, r"must be at least the number of processes \(2\), .* not 1"),
        ({"gradient_accumulation_steps": 3}, None, "needs 1 batches per step, but gradient_accumulation_steps is 3"),
    ],
)
def test_a_global_batch_that_is_not_possible_is_refused(settings: dict[str, Any], data: Any, said: str) -> None:
    config = TrainerConfig(device="cpu", **{"global_batch_size": 8} | settings)
    feed = make_loaders(xy() if data is None else data, None, config).train
    if feed.order is not None:
        feed.share(0, 2)
    with pytest.raises(ConfigError, match=said):
        set_global_batch(config, feed, 2)


def test_one_process_accumulates_a_global_batch_and_counts_epochs_in_its_steps() -> None:
    """16 samples are two steps of 6 and one of 4, in batches of up to 4."""
    one = case("one", 16, batch_size=6, max_epoch=2)
    many = case("many", 16, batch_size=4, global_batch_size=6, max_epoch=2)
    assert joined([many]) == joined([one])
    assert len(one["ids"]) == 6
    torch.testing.assert_close(many["weights"], one["weights"], rtol=1e-5, atol=1e-7)
    with pytest.raises(ConfigError, match="global_batch_size is not for a LightningModule"):
        darkit.fit(Base(), xy(), global_batch_size=8, device="cpu")
