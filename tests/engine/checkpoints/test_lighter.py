"""Older checkpoints without the state of the optimizer: verified at every moment, and truthful about what they lack."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy
import pytest
import torch

import darkit
from darkit.engine.checkpoints import checkpoint
from darkit.engine.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.engine.checkpoints.lighter import remove_optimizer
from darkit.engine.checkpoints.snapshot import Snapshot
from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.checkpoints import Checkpoint, list_checkpoints, manifest_path
from darkit.runs.verify import find_problem
from tests.engine.native.modules import Base, train_loader
from tests.engine.parts import made, train, xy

_WEIGHTS = torch.arange(5000.0)


def saved(folder: Path, step: int = 1, **further: Any) -> Checkpoint:
    content = {
        "state_dict": {"w": _WEIGHTS, "tied": _WEIGHTS},
        "model_class": "M",
        "current_step": step,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(10000), "count": numpy.arange(3)}}},
        "callbacks": {"own": numpy.arange(4)},
    }
    write_checkpoint(folder, step, Snapshot().copy(content | further), metrics={"val_loss": 0.5}, run_id="me")
    return next(one for one in list_checkpoints(folder) if one.step == step)


def test_the_weights_stay_and_the_optimizer_goes(tmp_path: Path) -> None:
    before = saved(tmp_path)
    whole = read_checkpoint(before)
    remove_optimizer(before)
    (after,) = list_checkpoints(tmp_path)
    light = read_checkpoint(after)
    assert list(differences(whole["state_dict"], light["state_dict"])) == []
    assert light["state_dict"]["w"].data_ptr() == light["state_dict"]["tied"].data_ptr()
    assert light["callbacks"]["own"].tolist() == [0, 1, 2, 3]
    assert "optimizer_state_dict" not in light
    assert (after.verified, after.has_optimizer, before.has_optimizer) == (True, False, True)
    assert after.metrics == before.metrics == {"val_loss": 0.5}
    assert after.size < before.size - 40_000
    manifest = files.read_json(manifest_path(after.path))
    assert (manifest["size"], manifest["sha256"]) == (after.size, after.sha256), "for whoever compares them without us"


def test_who_has_just_found_a_checkpoint_reads_what_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    find = checkpoint.find_checkpoint

    def find_and_lose(folder: Path, wanted: Any) -> Checkpoint:
        found = find(folder, wanted)
        if found.has_optimizer:  # which the training takes out of it at this very moment
            remove_optimizer(found)
        return found

    monkeypatch.setattr(checkpoint, "find_checkpoint", find_and_lose)
    found, content = checkpoint.read_run_checkpoint(tmp_path, 1)
    assert not found.has_optimizer
    assert torch.equal(content["state_dict"]["w"], _WEIGHTS)


def test_at_every_call_of_the_system_the_checkpoint_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved(tmp_path)
    seen: list[bool] = []

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: Any, **settings: Any) -> Any:
            result = call(*arguments, **settings)
            (now,) = list_checkpoints(tmp_path)
            assert now.verified
            assert find_problem(now) == ""
            seen.append(now.has_optimizer)
            return result

        return look

    for name in ("replace", "fsync", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    remove_optimizer(before)
    assert seen[0]
    assert not seen[-1]
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("number", range(3), ids=["manifest of both", "file", "manifest of the new one"])
def test_killed_before_a_rename_it_is_done_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before, replace, left = saved(tmp_path), os.replace, number

    def killed(*arguments: Any) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        replace(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_optimizer(before)
    (now,) = list_checkpoints(tmp_path)
    assert (find_problem(now), now.has_optimizer) == ("", number < 2)
    if now.has_optimizer:
        remove_optimizer(now)
    (after,) = list_checkpoints(tmp_path)
    assert (find_problem(after), after.has_optimizer) == ("", False)
    assert torch.equal(read_checkpoint(after)["state_dict"]["w"], _WEIGHTS)


def test_a_damaged_checkpoint_is_not_made_a_verified_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = saved(tmp_path)
    data = bytearray(one.path.read_bytes())
    data[len(data) // 2] ^= 1
    one.path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        remove_optimizer(one)
    assert "keeps its optimizer state, because it is damaged" in caplog.text
    assert one.path.read_bytes() == data
    assert find_problem(list_checkpoints(tmp_path)[0])


def test_averaged_weights_stay_and_the_ones_to_resume_from_go(tmp_path: Path) -> None:
    remove_optimizer(saved(tmp_path, raw_state_dict={"w": _WEIGHTS + 1}))
    light = read_checkpoint(list_checkpoints(tmp_path)[0])
    assert "raw_state_dict" not in light
    assert torch.equal(light["state_dict"]["w"], _WEIGHTS)


@pytest.fixture
def run() -> darkit.Run:
    return train(made(), xy(), name="a", max_step=6, save_step_interval=2, optimizer="adam", keep_optimizer="last")


def test_only_the_last_one_of_a_run_keeps_the_optimizer(run: darkit.Run) -> None:
    found = run.checkpoints()
    assert [(one.step, one.has_optimizer, one.verified) for one in found] == [
        (2, False, True),
        (4, False, True),
        (6, True, True),
    ]
    contents = [read_checkpoint(one) for one in found]
    assert ["optimizer_state_dict" in content for content in contents] == [False, False, True]
    assert [content["current_step"] for content in contents] == [2, 4, 6]


def test_the_run_resumes_from_the_last_one_as_ever(run: darkit.Run) -> None:
    whole = train(made(), xy(), name="whole", max_step=9, optimizer="adam")
    resumed = train(made(), xy(), name="a", max_step=9, optimizer="adam", keep_optimizer="last", resume=True)
    last, expected = (read_checkpoint(one.checkpoints()[-1]) for one in (resumed, whole))
    assert list(differences(last["state_dict"], expected["state_dict"])) == []
    assert [one.has_optimizer for one in resumed.checkpoints()] == [False, False, False, True]


def test_an_older_one_is_refused_for_a_resume_and_starts_a_new_run(run: darkit.Run) -> None:
    refused = r"iter-4-ckpt of the run 'a' has lost its optimizer state .* give another name= to start a new run"
    with pytest.raises(ConfigError, match=refused):
        train(made(), xy(), max_step=9, optimizer="adam", resume="a:iter-4-ckpt")
    assert [one.step for one in run.checkpoints()] == [2, 4, 6]
    assert train(made(), xy(), name="b", max_step=2, optimizer="adam", resume="a:iter-4-ckpt").status == "finished"


def test_where_the_last_one_is_damaged_the_one_before_is_refused_too(run: darkit.Run) -> None:
    last = run.checkpoints()[-1].path
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="iter-4-ckpt of the run 'a' has lost its optimizer state"):
        train(made(), xy(), name="a", max_step=9, optimizer="adam", resume=True)


def test_the_best_one_is_kept_with_its_weights(home: Path) -> None:
    settings = {"max_step": 6, "save_step_interval": 1, "keep_last": 1, "keep_best": 1, "monitor": "train_loss"}
    run = train(made(), xy(), name="a", keep_optimizer="last", **settings)
    kept = run.checkpoints()
    assert [one.has_optimizer for one in kept] == [False] * (len(kept) - 1) + [True]
    assert all(find_problem(one) == "" for one in kept)


@pytest.mark.filterwarnings("ignore:::lightning", "ignore:You defined a")
def test_lightnings_own_loop_keeps_them_alike_and_refuses_to_resume_from_weights(home: Path) -> None:
    settings = {"name": "a", "save_step_interval": 2, "keep_optimizer": "last", "device": "cpu", "tensorboard": False}
    run = darkit.fit(Base(), train_loader(), max_step=6, **settings)
    found = run.checkpoints()
    assert [(one.step, one.has_optimizer, one.verified) for one in found] == [
        (2, False, True),
        (4, False, True),
        (6, True, True),
    ]
    with pytest.raises(ConfigError, match="iter-2-ckpt of the run 'a' has lost its optimizer state"):
        darkit.fit(Base(), train_loader(), max_step=9, resume="a:iter-2-ckpt", **settings)
    with pytest.raises(KeyError, match="contains only the model"):
        stock = lightning.Trainer(
            accelerator="cpu",
            max_steps=9,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        stock.fit(Base(), train_loader(), ckpt_path=found[0].path)
    loaded = Base.load_from_checkpoint(found[0].path, map_location="cpu", weights_only=True)
    saved_weights = read_checkpoint(found[0])["state_dict"]
    assert list(differences(dict(loaded.state_dict()), dict(saved_weights))) == []
