"""The processes of a sweep, and signals that come while they start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from darkit.errors import SweepError
from darkit.sweep.pool import Pool, Request, cuda_devices

LEAVES = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "lightning"):
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN and os.getpgrp() == os.getpid()
            assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            os._exit(7)
sys.meta_path.insert(0, Finder())
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
import darkit.cli.warm
"""


def request(run: str) -> Request:
    return Request(run=run, words=(), output="", folder="", environment={})


class Starting:
    """A child that is started while a signal comes."""

    asked = False
    pid: int | None = None

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def start(self) -> None:
        self.pool._handle(signal.SIGTERM, None)
        self.process = subprocess.Popen(["sleep", "600"])
        self.pid, self.sentinel = self.process.pid, os.pidfd_open(self.process.pid)

    def join(self) -> None:
        self.exitcode = self.process.wait()

    def close(self) -> None:
        os.close(self.sentinel)


def pool_of(child: Any) -> Pool:
    pool = Pool(print, (), 2)  # type: ignore[arg-type]

    class Context:
        def Process(self, **arguments: Any) -> Any:
            return child(pool)

    pool._context = Context()  # type: ignore[assignment]
    return pool


def test_a_child_that_starts_while_a_signal_comes_is_asked_to_stop() -> None:
    pool = pool_of(Starting)
    pool.start(request("r"))
    assert pool.wait() == [("r", -signal.SIGTERM)]
    assert (pool.stopped, pool.running) == (signal.SIGTERM, frozenset())


def test_a_child_that_cannot_start_is_one_sentence_and_is_not_waited_for() -> None:
    class Lost(Starting):
        def start(self) -> None:
            raise EOFError

    pool = pool_of(Lost)
    with pytest.raises(SweepError, match=r"The process of the run 'r' could not be started"):
        pool.start(request("r"))
    assert pool.wait() == []


def test_several_children_share_out_the_devices() -> None:
    pool, found = Pool(print, (), 3, ["0", "1"]), []  # type: ignore[arg-type]

    class Context:
        def Process(self, args: tuple[Request], **more: Any) -> Any:
            found.append(args[0].environment.get("CUDA_VISIBLE_DEVICES"))
            return Starting(Pool(print, (), 1))  # type: ignore[arg-type]

    pool._context = Context()  # type: ignore[assignment]
    for run in "abc":
        pool.start(request(run))
    pool._children["b"].process.kill()  # type: ignore[attr-defined]
    assert pool.wait() == [("b", -signal.SIGKILL)]
    pool.start(request("d"))
    assert found == ["0", "1", "0", "1"], "the one that has become free"
    pool._handle(signal.SIGTERM, None)
    while pool.running:
        pool.wait()
    assert Pool(print, (), 1, ["0", "1"])._devices == (), "one job has all devices to choose from"  # type: ignore[arg-type]
    assert cuda_devices({"CUDA_VISIBLE_DEVICES": "3,GPU-a,-1,5"}) == ["3", "GPU-a"]
    assert cuda_devices({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_the_server_leaves_the_group_before_it_imports_torch() -> None:
    assert subprocess.run([sys.executable, "-c", LEAVES], check=False, timeout=120).returncode == 7
