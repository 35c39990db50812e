"""Work that gives way to the training, and no longer once somebody waits."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from darkit.engine.checkpoints.priority import Beside, begin_background, hurrying

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there threads have priorities")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def measured(beside: Beside) -> int:
    found: list[int] = []
    beside(lambda: found.append(niceness()))
    return found[0]


def test_work_beside_a_training_has_the_lowest_priority_until_somebody_waits() -> None:
    usual = niceness()
    with ThreadPoolExecutor(1, initializer=begin_background) as threads:
        beside = threads.submit(Beside, 1).result()
        assert threads.submit(measured, beside).result() == 19
        with hurrying():
            assert threads.submit(measured, beside).result() == usual
        assert threads.submit(measured, beside).result() == 19
        assert threads.submit(niceness).result() == usual, "the thread that hands the work out keeps its own"
        beside.close()
    assert niceness() == usual


def test_other_work_is_done_by_the_thread_that_asks_for_it() -> None:
    beside, names = Beside(1), list[str]()
    beside(lambda: names.append(threading.current_thread().name))
    beside.close()
    assert names == [threading.current_thread().name]


def test_an_error_is_that_of_the_work() -> None:
    with ThreadPoolExecutor(1, initializer=begin_background) as threads:
        beside = threads.submit(Beside, 1).result()
        with pytest.raises(ZeroDivisionError):
            threads.submit(beside, lambda: 1 // 0).result()
        beside.close()
