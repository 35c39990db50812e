"""The processes of a sweep: children of a warm server, since an interpreter with torch takes seconds to start.

They are in a process group of their own: Ctrl-C in a terminal reaches the sweep alone, which asks them to stop once.
A child whose sweep is killed stops by itself (`darkit.cli.trial`).
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Self

import psutil

from darkit.errors import SweepError
from darkit.runs.child import safe_path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_POLL = 0.1  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Request:
    """What a child does.

    Attributes:
        run: The name of the run that it trains.
        words: The words of its ``darkit train``.
        output: Where its output goes.
        folder: Its working directory.
        environment: Its environment.
        lineage: What ``run.json`` says about the sweep.
        sweep: The sweep's name.
        pause_at: The step at which it is paused, or None.
        median: What decides whether it is paused below the median: the arguments of `PauseBelowMedian`; or None.
    """

    run: str
    words: tuple[str, ...]
    output: str
    folder: str
    environment: dict[str, str]
    lineage: dict[str, Any] = field(default_factory=dict)
    sweep: str = ""
    pause_at: int | None = None
    median: dict[str, Any] | None = None


class Pool:
    """Runs a few children at once. As a context manager it handles signals, and leaves no child behind.

    Args:
        target: What a child calls with its request: a function of a module.
        preload: Modules that the server imports once for all children.
        size: Number of children at once.
        devices: The CUDA devices, as ``CUDA_VISIBLE_DEVICES`` names them, which several children share out.

    Attributes:
        stopped: The signal that the sweep was asked to stop by, or 0.
    """

    def __init__(
        self, target: Callable[[Request], None], preload: Sequence[str], size: int, devices: Sequence[str] = ()
    ) -> None:
        self._target = target
        self._size = size
        self._devices = devices if size > 1 and len(devices) > 1 else ()
        self._taken: dict[str, str] = {}  # the device of each run
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*preload])
        self._children: dict[str, BaseProcess] = {}
        self._before: dict[signal.Signals, Any] = {}
        self.stopped = 0

    @property
    def is_free(self) -> bool:
        """Whether another child may start."""
        return len(self._children) < self._size and not self.stopped

    @property
    def running(self) -> frozenset[str]:
        """The runs that are trained now."""
        return frozenset(self._children)

    def start(self, request: Request) -> None:
        """Start a child; one that starts while a signal comes is asked to stop at once.

        Raises:
            SweepError: The server that starts it has ended.
        """
        if self._devices:
            taken = list(self._taken.values())
            device = self._taken[request.run] = min(self._devices, key=taken.count)
            request = replace(request, environment={**request.environment, VISIBLE: device})
        child = self._context.Process(target=self._target, args=(request,), name=request.run)
        try:
            child.start()
        except (EOFError, ConnectionError) as error:
            raise SweepError(
                f"The process of the run {request.run!r} could not be started: the server of the sweep has ended. Run "
                "the same command again."
            ) from error
        self._children[request.run] = child  # not before: the signal's handler needs its number
        if self.stopped:
            self._ask(signal.SIGTERM)

    def wait(self) -> list[tuple[str, int]]:
        """Wait until a child has ended or a signal came; return the runs whose children ended, and their exit codes."""
        while True:
            asked = self.stopped
            ready = connection.wait([child.sentinel for child in self._children.values()], timeout=_POLL)
            ended = []
            for run, child in list(self._children.items()):
                if child.sentinel in ready and not _survives(child):
                    child.join()
                    ended.append((run, child.exitcode or 0))
                    child.close()
                    del self._children[run]
                    self._taken.pop(run, None)
            if ended or not self._children or asked != self.stopped:
                return ended

    def call(self, target: Callable[..., None], *arguments: Any) -> Any:
        """Call a function in a child, with the sending end of a pipe before its arguments; return what it sent.

        Raises:
            EOFError: It sent nothing.
        """
        _start_server()
        receiving, sending = self._context.Pipe(duplex=False)
        child = self._context.Process(target=target, args=(sending, *arguments))
        child.start()
        sending.close()
        with receiving:
            try:
                return receiving.recv()
            finally:
                child.join()

    def __enter__(self) -> Self:
        _start_server()
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._ask(signal.SIGTERM)
            while self._children:
                self.wait()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.stopped = bool(self.stopped), number
        self._ask(signal.SIGKILL if again and number != signal.SIGHUP else signal.SIGTERM)

    def _ask(self, number: signal.Signals) -> None:
        """Send a signal to all children; SIGTERM only once, since a second one ends them without a checkpoint."""
        for child in list(self._children.values()):
            if child.pid is None or (number == signal.SIGTERM and getattr(child, "asked", False)):
                continue
            child.asked = True  # type: ignore[attr-defined]
            with suppress(psutil.NoSuchProcess):
                psutil.Process(child.pid).send_signal(number)


def cuda_devices(environment: Mapping[str, str]) -> list[str]:
    """Return the CUDA devices that a process may use, without torch; empty where nothing tells them."""
    if VISIBLE in environment:
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), environment[VISIBLE].split(",")))
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]  # CUDA may number them in another order
    except pynvml.NVMLError:  # no driver on this machine
        return []


def _start_server() -> None:
    """Start the server with SIGINT blocked, until it has left the group that Ctrl-C reaches (`darkit.cli.warm`)."""
    with safe_path():
        resource_tracker.ensure_running()  # it unblocks the signal itself
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _survives(child: BaseProcess) -> bool:
    """Return whether a child runs although the server that would tell its end has ended."""
    if child.pid is None:
        return False
    with suppress(psutil.NoSuchProcess):
        if psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL)
            return True
    return False
