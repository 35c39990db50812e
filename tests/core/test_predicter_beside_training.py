"""Predicting and evaluating beside a training that saves and deletes, and past a checkpoint that is damaged."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import darkit
from darkit.cli.main import main
from darkit.core import Predicter
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint, write_checkpoint
from darkit.errors import CheckpointCorruptError, CheckpointNotFoundError
from darkit.prediction.evaluation import evaluate_run, measure_run
from darkit.runs import Run
from darkit.runs.checkpoints import checkpoint_path, find_checkpoint
from darkit.runs.lock import RunLock
from darkit.runs.notes import read_notes
from darkit.runs.retention import remove_files
from darkit.runs.verify import find_problem
from tests.engine.parts import LossMLP, made, train, xy


@pytest.fixture
def run() -> Run:
    return train(LossMLP(), xy(), name="a", max_step=6, save_step_interval=2)


def damage(path: Path) -> None:
    """Turn one byte in the middle over: the size stays what the manifest says."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def weights(run: Run, step: int) -> dict[str, Tensor]:
    return torch.load(checkpoint_path(run.path, step), weights_only=True)["state_dict"]


def test_a_damaged_latest_checkpoint_is_passed_over_and_both_are_named(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    damage(checkpoint_path(run.path, 6))
    with caplog.at_level(logging.WARNING):
        predicter = Predicter.from_pretrained("a", "cpu")
    assert predicter.checkpoint is not None
    assert predicter.checkpoint.name == "iter-4-ckpt"
    for name, value in weights(run, 4).items():
        assert torch.equal(predicter.model.state_dict()[name], value)
    assert "Skipped iter-6-ckpt of run 'a'" in caplog.text
    assert "Using iter-4-ckpt of run 'a' instead." in caplog.text
    with pytest.raises(CheckpointCorruptError, match="damaged"):
        Predicter.from_pretrained("a:6", "cpu")
    evaluate_run("a", xy(), device="cpu")
    assert [one.checkpoint for one in read_notes(run.path).evaluations] == ["iter-4-ckpt"]


def test_the_commands_pass_over_it_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = train(made(), xy(), name="a", max_step=6, save_step_interval=2)
    damage(checkpoint_path(run.path, 6))
    assert main(["export", "a", "--output", str(tmp_path / "a.pth"), "--format", "torch"]) == 0
    assert "a:iter-4-ckpt" in capfd.readouterr().out
    assert main(["predict", "a", "[[1, 2, 3, 4]]", "--device", "cpu"]) == 0
    assert capfd.readouterr().out.startswith("[[")


def test_with_every_checkpoint_damaged_it_is_one_sentence(run: Run) -> None:
    for step in (2, 4, 6):
        damage(checkpoint_path(run.path, step))
    with pytest.raises(CheckpointCorruptError, match="No checkpoint of the run 'a' is intact"):
        Predicter.from_pretrained("a", "cpu")


def test_an_evaluation_notes_the_checkpoint_it_loaded_while_the_training_saves_newer_ones(run: Run) -> None:
    class Slow(torch.utils.data.Dataset[Any]):
        """Its training goes on while it is read."""

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            write_checkpoint(run.path, 100 + index, {"state_dict": weights(run, 6)}, metrics={}, run_id="")
            return torch.zeros(4), torch.zeros(1)

    assert measure_run("a", Slow(), device="cpu").checkpoint == "iter-6-ckpt"
    assert measure_run("a:2", Slow(), device="cpu").checkpoint == "iter-2-ckpt"
    evaluate_run("a", xy(), device="cpu")
    assert read_notes(run.path).evaluations[-1].checkpoint == "iter-103-ckpt"


@pytest.fixture
def keeps_one(run: Run) -> Iterator[list[int]]:
    """Another part saves a step and deletes the one before, as fast as it can: ``keep_last=1``."""
    content = torch.load(checkpoint_path(run.path, 6), weights_only=True)
    for step in (2, 4):
        remove_files(checkpoint_path(run.path, step))
    ended, steps = threading.Event(), [6]

    def save() -> None:
        while not ended.is_set():
            step = steps[-1] + 1
            write_checkpoint(run.path, step, content, metrics={}, run_id="")
            remove_files(checkpoint_path(run.path, steps[-1]))
            steps.append(step)

    thread, lock = threading.Thread(target=save), RunLock(run.path)
    thread.start()
    yield steps
    ended.set()
    thread.join()
    lock.release()


def test_the_latest_is_looked_for_again_where_a_training_deletes_it_meanwhile(
    run: Run, keeps_one: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(150):
            checkpoint, content = read_run_checkpoint(run.path)
            assert content["current_step"] == 6, "it was read whole"
            assert checkpoint.step >= 6
    assert keeps_one[-1] > 6
    assert "Skipped" not in caplog.text, "it was not damaged"


def test_verifying_counts_no_checkpoint_that_was_deleted_meanwhile(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = find_problem

    def vanish_first(checkpoint: Any) -> str:
        if checkpoint.step == 2:
            remove_files(checkpoint.path)
        return original(checkpoint)

    monkeypatch.setattr("darkit.cli.verify.find_problem", vanish_first)
    assert main(["verify", "a"]) == 0
    out = capsys.readouterr().out
    assert "iter-2-ckpt" not in out
    assert out.count("verified") == 2


def test_one_that_is_deleted_each_time_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(checkpoint: Any, device: Any = "cpu") -> Any:
        Path(checkpoint).unlink()
        write_checkpoint(run.path, checkpoint.step + 1, {"state_dict": {}}, metrics={}, run_id="")
        raise CheckpointCorruptError("gone")

    monkeypatch.setattr("darkit.engine.checkpoints.checkpoint.read_checkpoint", vanish)
    with pytest.raises(CheckpointNotFoundError, match="deletes its checkpoints faster than they can be read"):
        read_run_checkpoint(run.path)
    with pytest.raises(CheckpointNotFoundError, match="iter-2-ckpt of the run 'a' was deleted while it was read"):
        read_run_checkpoint(run.path, 2)


def test_a_checkpoint_is_the_path_of_its_file(run: Run) -> None:
    latest = run.latest_checkpoint()
    assert latest is not None
    assert os.fspath(latest) == str(latest.path)
    assert torch.load(latest, weights_only=True)["current_step"] == 6
    with Path(find_checkpoint(darkit.load("a").path, 4)).open("rb") as file:
        assert file.read(2) == b"PK"
