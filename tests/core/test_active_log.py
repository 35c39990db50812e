"""What a loop that darkit does not know logs: the rows, their values, and what is refused."""

from __future__ import annotations

import gc
import math
import threading
import time
from decimal import Decimal
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import darkit
from darkit.errors import LogError, StorageError
from darkit.runs.log import CsvLog
from tests.core.parts import rows


def test_all_calls_of_a_step_make_one_row_and_columns_may_come_at_any_time() -> None:
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0}, step=0)
        run.log({"acc": 0.1, "loss": 2.0}, step=0)
        run.log({"loss": 3.0}, step=7)
        run.log({'late, "quoted"': 4}, step=7)
    assert rows("mine") == [
        {"step": 0, "loss": 2.0, "acc": 0.1, 'late, "quoted"': None},
        {"step": 7, "loss": 3.0, "acc": None, 'late, "quoted"': 4},
    ]


def test_without_a_step_each_call_is_the_next_step() -> None:
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0})
        run.log({"loss": 2.0}, step=5)
        run.log({"loss": 3.0})
        assert run.step == 6
    assert [row["step"] for row in rows("mine")] == [1, 5, 6]


def test_a_row_is_readable_although_its_step_goes_on_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.core.loop_rows._IDLE", 0.05)
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0}, step=1)
        deadline = time.monotonic() + 60
        while not darkit.load("mine").log().height:
            assert time.monotonic() < deadline
        run.log({"val_loss": 2.0}, step=1)
        run.save(step=1)
    assert rows("mine") == [{"step": 1, "loss": 1.0, "val_loss": None}, {"step": 1, "loss": None, "val_loss": 2.0}]
    assert darkit.load("mine").checkpoints()[0].metrics == {"loss": 1.0, "val_loss": 2.0}


def test_a_loop_that_continues_after_a_full_disk_loses_no_row_and_is_logged_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, full = CsvLog.append, [True]

    def append(log: CsvLog, rows: Any) -> None:
        if full:
            raise StorageError(28, "no space")
        original(log, rows)

    monkeypatch.setattr(CsvLog, "append", append)
    refused: list[int] = []
    step = 0

    def log() -> None:
        nonlocal step
        step += 1
        try:
            run.log({"loss": float(step)}, step=step)
        except StorageError:
            refused.append(step)

    with darkit.start_run("mine") as run:
        deadline = time.monotonic() + 60
        while not refused:
            log()
            assert time.monotonic() < deadline
        full.clear()
        log()
        log()
        expected = [one for one in range(1, step + 1) if one not in refused]
        while darkit.load("mine").log()["step"].to_list() != expected[:-1]:
            assert time.monotonic() < deadline
    assert darkit.load("mine").log()["step"].to_list() == expected
    assert len(refused) == 1, "it is said once"


@pytest.mark.parametrize(
    "value",
    [
        *(0.1, 7, True, None, "text", numpy.float32(0.5), numpy.array([[2]]), Decimal("0.5"), math.nan, -math.inf),
        *(torch.tensor(0.25), torch.tensor([[3.0]], requires_grad=True), torch.tensor(1.5, dtype=torch.bfloat16)),
        *(torch.tensor(2**60), torch.tensor(True), 2**60),
    ],
)
def test_a_value_reads_back_as_it_was(value: Any) -> None:
    with darkit.start_run("mine") as run:
        run.log({"x": value, "y": 1.0})
    (row,) = rows("mine")
    expected = value.item() if hasattr(value, "item") else float(value) if isinstance(value, Decimal) else value
    assert repr(row["x"]) == repr(expected)


@pytest.mark.parametrize("device", ["cpu", "accelerator"])
def test_what_is_logged_is_the_value_at_the_call(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "accelerator":  # its tensors are copied now and read later
        monkeypatch.setattr("darkit.engine.log.values._is_in_host_memory", lambda value: False)
    loss, held, array = torch.tensor(1.0), torch.zeros(3), numpy.array([5.0])
    values: dict[str, Any] = {"loss": loss, "part": held[1], "array": array}
    with darkit.start_run("mine") as run:
        run.log(values, step=1)
        loss.fill_(9.0)
        held += 9.0
        array += 9.0
        values["loss"] = 9.0
        run.log({"loss": loss}, step=2)
        loss.fill_(10.0)
    assert rows("mine") == [
        {"step": 1, "loss": 1.0, "part": 0.0, "array": 5.0},
        {"step": 2, "loss": 9.0, "part": None, "array": None},
    ]


def test_a_tensor_on_an_accelerator_is_not_read_on_the_training_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.engine.log.values._is_in_host_memory", lambda value: False)
    readers = []

    class Remote(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
                readers.append(threading.current_thread().name)
            return super().__torch_function__(func, types, args, kwargs or {})

    with darkit.start_run("mine") as run:
        for step in range(1, 50):
            run.log({"loss": torch.tensor(float(step)).as_subclass(Remote)}, step=step)
        training = len(readers)
    assert training == readers.count("darkit-log")
    assert [row["loss"] for row in rows("mine")] == [float(step) for step in range(1, 50)]


def test_logging_holds_no_graph_and_no_large_tensor() -> None:
    with darkit.start_run("mine", tensorboard=False) as run:
        for step in range(20):
            run.log({"loss": (torch.ones(500_000, requires_grad=True) * 2)[0]}, step=step)
        held = [one for one in gc.get_objects() if isinstance(one, Tensor) and one.numel() > 400_000]
    assert len(held) < 3


@pytest.mark.parametrize(
    ("values", "step", "said"),
    [
        (
            {"loss": [1.0]},
            6,
            "'loss' must be a number, a tensor of one element, a short text or a medium",
        ),
        ({"loss": torch.ones(2)}, 6, "not a Tensor of the shape (2,)"),
        ({"loss": 1.0, "z": 1j}, 6, "'z' is complex"),
        ({"loss": 10**400}, 6, "'loss' is an integer of 1329 bits"),
        ({"loss": "x" * 10_001}, 6, "has 10001 characters, more than 10000: give darkit.Text"),
        ({"step": 3}, 6, "fills the column 'step' itself"),
        ({"time": 3}, 6, "fills the column 'time' itself"),
        ({"a\nb": 3}, 6, "printable text on one line, not 'a\\nb'"),
        ({3: 3}, 6, "printable text on one line, not 3"),
        ([("loss", 1)], 6, "takes a dict of values by column, not list"),
        (3, 6, "takes a dict of values by column, not int"),
        ({"loss": 1.0}, 4, "log(step=4) is before step 5: steps must not decrease"),
        ({"loss": 1.0}, -1, "step must be a whole number of at least 0, not -1"),
        ({"loss": 1.0}, 6.5, "step must be a whole number of at least 0, not 6.5"),
        ({"loss": 1.0}, True, "step must be a whole number of at least 0, not True"),
        ({"loss": 1.0}, "7", "step must be a whole number of at least 0, not '7'"),
    ],
)
def test_what_cannot_be_logged_is_refused_and_nothing_of_it_is_logged(values: Any, step: Any, said: str) -> None:
    with darkit.start_run("mine") as run:
        run.log({"loss": 0.5}, step=5)
        with pytest.raises(LogError) as refused:
            run.log(values, step=step)
        assert said in str(refused.value)
        run.log({"loss": 0.7}, step=6)
    assert rows("mine") == [{"step": 5, "loss": 0.5}, {"step": 6, "loss": 0.7}]


def test_a_log_of_too_many_columns_is_refused_before_no_reader_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.core.loop_rows.MOST_COLUMNS", 5)
    with darkit.start_run("mine") as run:
        run.log({"a": 1, "b": 1, "c": 1})
        with pytest.raises(LogError, match="'d' is one too many"):
            run.log({"d": 1})
    assert rows("mine") == [{"step": 1, "a": 1, "b": 1, "c": 1}]


def test_threads_may_log_at_the_same_time() -> None:
    with darkit.start_run("mine", tensorboard=False) as run:

        def work(name: str) -> None:
            for _ in range(300):
                run.log({name: 1.0})

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log = darkit.load("mine").log()
    assert log["step"].to_list() == list(range(1, 1201))
    assert [log[name].sum() for name in "abcd"] == [300.0] * 4
