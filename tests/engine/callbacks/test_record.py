"""The record of batches: one line for each, equal for equal ones."""

from __future__ import annotations

from pathlib import Path

from darkit.engine.callbacks.record import RecordBatches
from tests.engine.callbacks.stock import Foreign, stock_fit
from tests.engine.parts import Stream, made, train, xy


def lines(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_alone_there_is_a_line_for_every_batch_and_equal_batches_have_equal_digests(folder: Path) -> None:
    stock_fit(Foreign(), RecordBatches(folder / "batches"), max_epochs=2)
    record = lines(folder / "batches")
    assert [row[:2] for row in record] == [[str(epoch), str(batch)] for epoch in (0, 1) for batch in range(4)]
    digests = [row[2] for row in record]
    assert digests[:4] == digests[4:]
    assert len(set(digests)) == 4


def test_it_goes_on_where_it_was_also_with_a_single_batch(folder: Path) -> None:
    record = RecordBatches(folder / "batches")
    for _ in range(2):
        stock_fit(Foreign(), record, max_steps=1)
    assert [row[:2] for row in lines(folder / "batches")] == [["0", "0"], ["0", "0"]]


def test_in_a_run_every_batch_is_one_line_though_steps_come_in_stretches(folder: Path) -> None:
    for data in (xy(), Stream(16)):
        path = folder / type(data).__name__
        train(made(), data, max_step=10, callbacks=[RecordBatches(path)])
        places = [(epoch, batch) for epoch in range(3) for batch in range(4)][:10]
        assert [(int(row[0]), int(row[1])) for row in lines(path)] == places


def test_accumulated_batches_are_lines_too(folder: Path) -> None:
    train(made(), xy(), max_step=2, gradient_accumulation_steps=2, callbacks=[RecordBatches(folder / "batches")])
    assert len(lines(folder / "batches")) == 4


def test_an_exception_keeps_the_lines_before_it(folder: Path) -> None:
    try:
        stock_fit(Foreign(fail_at=2), RecordBatches(folder / "batches"))
    except ZeroDivisionError:
        assert len(lines(folder / "batches")) == 2
    else:
        raise AssertionError
