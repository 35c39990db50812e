"""A digest of every batch that was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkit.engine.callbacks.record import RecordBatches
from tests.engine.parts import LossMLP, in_order, made, train, xy


def lines(path: Path) -> list[list[str]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [line.split(",") for line in text.splitlines()]


def record(folder: Path, name: str, **options: object) -> list[list[str]]:
    path = folder / name
    train(made(), options.pop("data", xy()), callbacks=[RecordBatches(path)], **options)
    return lines(path)


def test_every_batch_has_a_line_with_its_place(tmp_path: Path) -> None:
    rows = record(tmp_path, "a", max_step=6)
    assert [row[:2] for row in rows] == [["0", "0"], ["0", "1"], ["0", "2"], ["0", "3"], ["1", "0"], ["1", "1"]]
    assert all(len(row[2]) == 64 for row in rows)


def test_accumulated_batches_have_a_line_each(tmp_path: Path) -> None:
    assert len(record(tmp_path, "a", max_step=3, gradient_accumulation_steps=3)) == 9


def test_the_same_batches_have_the_same_digests_and_others_have_others(tmp_path: Path) -> None:
    one, same, other = (record(tmp_path, name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one == same
    assert [row[:2] for row in one] == [row[:2] for row in other]
    assert one != other


def test_an_existing_record_is_continued(tmp_path: Path) -> None:
    first = record(tmp_path, "a", max_step=2, name="r")
    both = record(tmp_path, "a", max_step=4, name="r", resume=True)
    assert both[:2] == first
    assert [row[:2] for row in both] == [["0", "0"], ["0", "1"], ["0", "2"], ["0", "3"]]


def test_it_is_complete_when_the_training_fails(tmp_path: Path) -> None:
    class Failing(LossMLP):
        calls = 0

        def forward(self, x, y):  # type: ignore[no-untyped-def]
            self.calls += 1
            if self.calls > 3:
                raise ZeroDivisionError
            return super().forward(x, y)

    with pytest.raises(ZeroDivisionError):
        train(made(Failing), in_order(), callbacks=[RecordBatches(tmp_path / "a")])
    assert len(lines(tmp_path / "a")) == 3
