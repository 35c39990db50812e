"""A digest of every batch that was trained on, in whole lines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightning
import pytest
from torch.optim import SGD

from darkit.engine.callbacks.record import RecordBatches
from darkit.engine.data.fingerprint import add_to_digest
from darkit.engine.data.order import BatchOrder
from tests.engine.parts import LossMLP, in_order, made, train, xy


def lines(path: Path) -> list[tuple[int, int, str]]:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    return [(int(epoch), int(number), digest) for epoch, number, digest in rows]


def digest(batch: Any) -> str:
    made = hashlib.sha256()
    add_to_digest(made, batch)
    return made.hexdigest()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_batch_has_a_line_with_its_place_and_digest(tmp_path: Path, accumulate: int) -> None:
    path = tmp_path / "batches.csv"
    steps = 6 // accumulate
    train(made(), xy(), max_step=steps, gradient_accumulation_steps=accumulate, callbacks=[RecordBatches(path)])
    x, y = xy()
    expected = []
    for epoch in range(2):
        order = BatchOrder(16, 4, 0)
        order.start(epoch, 0)
        expected += [(epoch, number, digest([x[batch], y[batch]])) for number, batch in enumerate(order)]
    assert lines(path) == expected[:6]


def test_a_run_that_goes_on_adds_its_batches_at_their_places(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    train(made(), xy(), max_step=9, callbacks=[RecordBatches(whole)])
    for step in (3, 9):
        train(made(), xy(), name="run", resume="auto", max_step=step, callbacks=[RecordBatches(broken)])
    assert lines(broken) == lines(whole)


def test_each_line_is_on_the_disk_when_its_step_is_over(tmp_path: Path) -> None:
    path = tmp_path / "batches.csv"
    seen: list[int] = []

    class Reading(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if outputs:
                text = path.read_text()
                assert text.endswith("\n")
                seen.append(text.count("\n"))

    train(made(), xy(), max_step=4, callbacks=[RecordBatches(path), Reading()])
    assert seen == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:::lightning")
def test_in_a_stock_trainer_the_place_is_lightnings(tmp_path: Path) -> None:
    class Foreign(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = LossMLP()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(*batch)["loss"]

        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), lr=0.1)

    path = tmp_path / "batches.csv"
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[RecordBatches(path)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Foreign(), in_order(8))
    digests = [digest(batch) for batch in in_order(8)]
    assert lines(path) == [(epoch, number, digests[number]) for epoch in (0, 1) for number in (0, 1)]


def test_the_file_is_closed_however_the_training_ends(tmp_path: Path) -> None:
    class Failing(lightning.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            raise ZeroDivisionError

    recorder = RecordBatches(tmp_path / "batches.csv")
    with pytest.raises(ZeroDivisionError):
        train(made(), xy(), callbacks=[recorder, Failing()])
    assert recorder._file is None
    assert len(lines(tmp_path / "batches.csv")) == 1


def test_a_run_that_goes_on_where_an_epoch_is_complete_records_no_batch_twice(tmp_path: Path) -> None:
    path = tmp_path / "batches.csv"
    for steps in (4, 8):  # of four batches an epoch
        train(made(), xy(), name="r", resume="auto", max_step=steps, callbacks=[RecordBatches(path)])
    assert [line[:2] for line in lines(path)] == [(epoch, number) for epoch in range(2) for number in range(4)]
