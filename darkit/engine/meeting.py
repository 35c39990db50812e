"""Where the processes of one training meet: what they agree on before it, and why one of them has failed.

They share a store of torch's (a small server in the first process, or in torchrun) beside the process group, so nothing
of this is a collective: a step costs the same as without it. A thread of each process tells the store that the process
lives and reads whether another one has failed. A process that is then blocked in a collective, which torch ends only
after half an hour, is ended.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.distributed import DistError

from darkit.engine.config import TrainerConfig
from darkit.engine.stop import StopRequest, StopTraining
from darkit.engine.stores import Store
from darkit.errors import ConfigError, DarkitError, ProcessFailedError
from darkit.runs.forks import forget_in_child

logger = logging.getLogger(__name__)
LOOK = 1.0  # seconds between two looks at the store
SILENCE = 60  # looks without a sign of life after which a process elsewhere counts as dead: the GIL may be held long
GRACE = 5.0  # seconds that a process has to end by itself after another one has failed
PATIENCE = 300.0  # seconds that a process waits for the others at the beginning
_LAST_WORDS = 10.0  # seconds that a blocked process has to write its status
_SLOWEST = 0.5  # seconds between two looks while waiting
_DONE = "done"
_OF_PARTNERS = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe")
_current: Meeting | None = None


class Meeting:
    """The processes of one training, as this one sees them.

    Args:
        store: A store that all of them share, for this training only.
        rank: The rank of this process.
        size: Their number.
        number: The number of the training among those of several processes in its script.
        hosts: Whether the store's server is in this process, so that it must end last.

    Attributes:
        number: As given.
        agreed: Whether all know which run is trained.
        request: The request to stop this process, which ends every waiting.
    """

    def __init__(self, store: Store, rank: int, size: int, *, number: int = 1, hosts: bool = False) -> None:
        self.rank, self.size, self.number = rank, size, number
        self.agreed = False
        self.request = StopRequest()
        self._end: Callable[[BaseException], object] = lambda error: None
        self._store, self._hosts = store, hosts
        self._failure: dict[str, Any] | None = None
        self._over = threading.Event()
        self._free = threading.Event()  # the training has left its collectives
        self._process = os.getpid()
        self._me = f"{socket.gethostname()} {_machine()} {self._process} {psutil.Process().create_time()}"
        self._seen: dict[int, tuple[str, int]] = {}
        self._thread = threading.Thread(target=self._watch, name="darkit-processes", daemon=True)
        forget_in_child(self)

    def forget(self) -> None:
        """Stop watching in a forked child, such as a data worker, which is not a process of the training."""
        self._over.set()

    def attach(self, end: Callable[[BaseException], object], request: StopRequest) -> None:
        """Set what ends the run in this process with an error, and the request to stop it."""
        self._end, self.request = end, request

    def release(self) -> None:
        """Note that this process takes part in no collective any more: nothing can block it."""
        self._free.set()

    def start(self, *, watch: bool = True) -> None:
        """Say that this process is here, and watch the others, if nobody else does."""
        self._store.set(f"here/{self.rank}", self._me)
        if watch:
            self._thread.start()

    def agree(self, key: str, value: Any = None) -> Any:
        """Return the value (plain JSON) that the first process gives; the others wait for it.

        Raises:
            ProcessFailedError: The first process has failed.
        """
        if self.rank == 0:
            self._store.set(key, json.dumps(value))
            return value
        self._wait([key], lambda: f"process 0 of {self.size}, which says what is trained,")
        return json.loads(self._store.get(key))

    def agree_on(self, key: str, facts: Mapping[str, Any], what: str) -> None:
        """Check that a mapping is the same in the first process. Raises `ConfigError`."""
        mine = json.loads(json.dumps(facts, default=str))
        first = self.agree(key, mine)
        for name in first.keys() | mine.keys():
            if first.get(name) != mine.get(name):
                raise ConfigError(
                    f"All processes of one training need the same {what}, but {name} is {first.get(name)!r} in process "
                    f"0 and {mine.get(name)!r} in process {self.rank}."
                )

    def arrive(self, point: str, *, patience: float | None = None, look: Callable[[], None] = lambda: None) -> None:
        """Wait until all processes have come to a point of the training.

        Args:
            point: Its name.
            patience: Seconds to wait at most; None waits as long as the others live.
            look: Called while waiting, to raise what only the caller can know.

        Raises:
            ProcessFailedError: One has failed, or did not come in time.
        """
        self._store.set(f"{point}/{self.rank}", self._me)
        keys = [f"{point}/{rank}" for rank in range(self.size)]
        missing = lambda: self._list([rank for rank, key in enumerate(keys) if not self._store.check([key])])  # noqa: E731
        self._wait(keys, missing, patience, look)

    def _wait(
        self,
        keys: list[str],
        missing: Callable[[], str],
        patience: float | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        since, pause = time.monotonic(), 0.02
        with _losing_store():
            while not self._store.check(keys):
                self._look()
                self.raise_failure()
                if self.request.reason:
                    raise StopTraining(self.request)
                look()
                if patience is not None and time.monotonic() - since > patience:
                    raise ProcessFailedError(
                        f"{missing()} did not come within {patience:g} s. Is each process started by the launcher "
                        "(srun, torchrun) with the same settings, and can it reach the first one?"
                    )
                time.sleep(pause)
                pause = min(_SLOWEST, pause * 1.2)

    def _list(self, ranks: list[int]) -> str:
        shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
        return f"Process{'es' if len(ranks) > 1 else ''} {shown} of {self.size}"

    def raise_failure(self) -> None:
        """Raise `ProcessFailedError` if another process has failed."""
        self._read_failure()
        if self._failure is not None and self._failure["rank"] != self.rank:
            raise self._as_error(self._failure)

    def report(self, error: BaseException) -> None:
        """Tell the others why this process fails; the first report counts."""
        self._free.set()
        ended = isinstance(error, SystemExit) and self.request.reason  # all have agreed on it
        if isinstance(error, ProcessFailedError) or self._over.is_set() or ended:
            return
        if isinstance(error, StopTraining):
            self._publish(self.rank, f"was asked to stop before the training began. {self.request.reason}")
            return
        trace = "" if isinstance(error, DarkitError) else "".join(traceback.format_exception(error))
        self._publish(self.rank, f"failed: {type(error).__name__}: {error}", trace)

    def explain(self, error: BaseException) -> BaseException:
        """Return the error to end with: that of another process, if this one is only its consequence.

        The failure of another process breaks the connection to it, and a launcher then ends this process.
        """
        self._free.set()
        if isinstance(error, ProcessFailedError):
            return error
        is_asked = bool(self.request.reason) and isinstance(error, StopTraining | SystemExit)
        if is_asked or _is_of_partners(error):
            deadline = time.monotonic() + (0.0 if is_asked else GRACE)
            while not self._over.is_set():
                with suppress(RuntimeError):
                    self._look()
                self._read_failure()
                if self._failure is not None and self._failure["rank"] != self.rank:
                    return self._as_error(self._failure)
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.05)
        if not is_asked:
            self.report(error)
        return error

    def leave(self) -> None:
        """End the watch. The process with the server waits briefly for the others, which need it until they end."""
        if self._over.is_set() or self._process != os.getpid():
            return
        with suppress(RuntimeError):
            self._store.set(f"beat/{self.rank}", _DONE)
            deadline = time.monotonic() + GRACE
            while self._hosts and any(map(self._is_at_work, range(self.size))) and time.monotonic() < deadline:
                time.sleep(0.02)
        self._over.set()

    def _beat(self, rank: int) -> str:
        key = f"beat/{rank}"
        return self._store.get(key).decode() if self._store.check([key]) else ""

    def _is_at_work(self, rank: int) -> bool:
        self._read_failure()
        if self._failure is not None and self._failure["rank"] == rank:
            return False
        return self._is_here(rank) and self._beat(rank) != _DONE

    def _publish(self, rank: int, sentence: str, trace: str = "") -> None:
        told = json.dumps({"rank": rank, "sentence": sentence, "traceback": trace[-20_000:]})
        with suppress(RuntimeError):
            self._store.compare_set("failed", "", told)

    def _read_failure(self) -> None:
        if self._failure is None:
            with suppress(RuntimeError):
                if self._store.check(["failed"]):
                    self._failure = json.loads(self._store.get("failed"))

    def _as_error(self, failure: Mapping[str, Any]) -> ProcessFailedError:
        error = ProcessFailedError(f"Process {failure['rank']} of {self.size} {failure['sentence']}")
        if failure["traceback"]:
            error.add_note(f"The traceback of process {failure['rank']}:\n{failure['traceback']}")
        return error

    def _watch(self) -> None:
        """Tell that this process lives, look after the others, and end this process if it is blocked by a failure."""
        count = 0
        while not self._over.wait(LOOK):
            count += 1
            try:
                self._store.set(f"beat/{self.rank}", f"{self._me} {count}")
                self._look(counts=True)
                self._read_failure()
            except RuntimeError:
                if self._seen.get(0, ("", 0))[0] == _DONE:
                    return
                self._failure = {"rank": 0, "sentence": "or its launcher is gone.", "traceback": ""}
            if self._failure is not None:
                self._end_if_blocked(self._failure)
                return

    def _look(self, *, counts: bool = False) -> None:
        """Publish the death of a process without a sign of life: the first looks after all, the others after it."""
        for rank in range(1, self.size) if self.rank == 0 else (0,):
            beat = self._beat(rank) or (self._store.get(f"here/{rank}").decode() if self._is_here(rank) else "")
            before, looks = self._seen.get(rank, ("", 0))
            looks = 0 if beat != before else looks + counts
            self._seen[rank] = beat, looks
            if not beat or beat == _DONE:
                continue
            host, machine, pid, started = beat.split()[:4]
            if machine == _machine():
                if not _lives(int(pid), float(started)):
                    self._publish(rank, f"was killed or ended without an error (pid {pid} on {host}).")
            elif looks >= SILENCE:
                self._publish(rank, f"gave no sign of life for {SILENCE * LOOK:g} s (pid {pid} on {host}).")

    def _is_here(self, rank: int) -> bool:
        return bool(self._store.check([f"here/{rank}"]))

    def _end_if_blocked(self, failure: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            if self._over.is_set() or self._free.is_set():
                return
            time.sleep(0.05)
        error = self._as_error(failure)
        if failure["rank"] != self.rank:
            with suppress(OSError):
                os.write(2, f"\nerror: {error} This process waits for it in vain and ends.\n".encode())
        ending = threading.Thread(target=self._end, args=(error,), daemon=True)
        ending.start()
        ending.join(_LAST_WORDS)
        sys.stdout.flush()
        os._exit(1)


@contextmanager
def _losing_store() -> Iterator[None]:
    """Turn the loss of the store into a sentence."""
    try:
        yield
    except DistError as error:
        raise ProcessFailedError("The first process of the training, or its launcher, is gone.") from error


def current() -> Meeting | None:
    """Return the meeting of the training in progress; None if it has one process."""
    return _current


def set_current(meeting: Meeting | None) -> None:
    """Set the meeting of the training in progress."""
    global _current
    _current = meeting


def agree_on_run(config: TrainerConfig, step: int) -> None:
    """Agree with the other processes on the run that is trained, if there are any.

    Args:
        config: The config, whose name is set to that of the first process if it has none.
        step: The step after which the run begins.

    Raises:
        ConfigError: The first process trains another run, or resumes it from another step.
    """
    if _current is None or _current.agreed:
        return
    mine = {"name": config.name, "step": step}
    first = _current.agree("run", mine)
    _current.agreed = True
    config.name = config.name or first["name"]
    if first != mine | {"name": config.name}:
        raise ConfigError(
            f"Process 0 trains the run {first['name']!r} from step {first['step']}, but process {_current.rank} finds "
            f"{config.name!r} at step {step}: all processes of a training need the same settings and the same darkit "
            "home ($DARWIN_KIT_HOME), on a file system that all machines share."
        )


def _is_of_partners(error: BaseException) -> bool:
    """Return whether an error tells of a broken connection to other processes."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OF_PARTNERS)


@functools.cache
def _machine() -> str:
    """Return what says whether a process id means the same here: the machine's boot and its space of process ids."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname()


def _lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
