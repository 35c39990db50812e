"""A disk that fails at any call of a save: the old or the new file, a typed error, and nothing half-written."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoint import read_checkpoint, write_checkpoint
from darkit.runs.checkpoints import describe_checkpoint
from darkit.runs.files import remove_leftovers
from darkit.runs.status import read_status
from tests.faults.parts import (
    LIMIT,
    Child,
    Code,
    Zygote,
    finished,
    problems,
    state,
    strace,
    temporary_files,
    training,
    wait_until,
)

CALLS = ("openat", "write", "fsync", "rename", "unlink")
# Saves a first time elsewhere, so that nothing is loaded lazily later, then waits at a pipe to be traced.
SAVE = """
import os, torch
from pathlib import Path
from darkit.engine.checkpoint import write_checkpoint
from darkit.errors import StorageError
from tests.faults.test_disk import content
folder, elsewhere, gate = Path({folder!r}), Path({elsewhere!r}), {gate!r}
def save(where, version):
    write_checkpoint(where, 1, content(version), metrics={{"val_loss": 1.0}}, run_id="id")
elsewhere.mkdir()
save(elsewhere, 0)
save(elsewhere, 0)
try:
    save(Path("/nonexistent"), 0)
except StorageError:
    pass
descriptor = os.open(gate, os.O_RDWR)
print("ready", flush=True)
os.read(descriptor, 1)
try:
    save(folder, 2)
except StorageError as error:
    print(f"{{type(error).__name__}}: {{error}}")
    raise SystemExit(7)
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, 900_000))\n"


def content(version: int) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((9000,), float(version))}, "model_class": "M", "current_step": 1}


@contextmanager
def traced(child: Child, log: Path, *options: str, thread: int | None = None) -> Iterator[Callable[[Path], None]]:
    """Attaches strace to a child that waits at a gate, or to one of its threads; yields what opens the gate."""
    wait_until(lambda: "ready" in child.output, f"a child at its gate: {child.output}")
    command = [
        strace(),
        "-y",
        "-o",
        str(log),
        *(["-p", str(thread)] if thread else ["-f", "-p", str(child.pid)]),
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        assert "attached" in line, line

        def begin(gate: Path) -> None:
            with gate.open("wb") as writer:
                writer.write(b"g")

        try:
            yield begin
        finally:
            if child.code is None:
                child.kill_group()
            tracer.communicate(timeout=LIMIT)


class Traced:
    """A save into a folder that may have an older version of the same step, traced from its first call on."""

    def __init__(self, zygote: Zygote, folder: Path, *options: str, older: bool = True) -> None:
        self.folder = folder / "run"
        self.folder.mkdir(parents=True)
        self.log = folder / "strace.txt"
        if older:
            write_checkpoint(self.folder, 1, content(1), metrics={}, run_id="id")
        gate = folder / "gate"
        os.mkfifo(gate)
        code = SAVE.format(folder=str(self.folder), elsewhere=str(folder / "elsewhere"), gate=str(gate))
        self.child: Child = zygote.run(code, folder)
        with traced(self.child, self.log, *options) as begin:
            begin(gate)
            self.code = self.child.wait()

    def version(self) -> float:
        """Reads the version that is there now, as whoever resumes would."""
        checkpoint = describe_checkpoint(self.folder / "iter-1-ckpt.pth", 1)
        assert checkpoint is not None, "neither the old nor the new file"
        return float(read_checkpoint(checkpoint)["state_dict"]["w"][0])


@pytest.fixture(scope="module")
def counted(warm: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often a save that replaces an older version makes each call."""
    traced = Traced(warm, tmp_path_factory.mktemp("count"), "-e", f"trace={','.join(CALLS)}")
    assert traced.code == 0, traced.child.output
    assert traced.version() == 2
    found = Counter(re.findall(r"^\d+ +(\w+)\(", traced.log.read_text(), re.MULTILINE))
    assert found["rename"] == 2, "the checkpoint and its manifest"
    assert found["fsync"] >= 4, "each file and the folder after it"
    assert found["openat"] >= 4
    assert found["write"] >= 4
    return found


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_call_of_a_save_the_old_or_the_new_file_is_there(
    zygote: Zygote, counted: Counter[str], tmp_path: Path, call: str
) -> None:
    for number in range(1, counted[call] + 1):
        injection = f"inject={call}:signal=KILL:when={number}"
        traced = Traced(zygote, tmp_path / str(number), "-e", f"trace={call}", "-e", injection)
        assert traced.code == -signal.SIGKILL, (number, traced.code)
        assert traced.version() in (1, 2), number
        remove_leftovers(traced.folder)
        assert temporary_files(traced.folder) == []


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EACCES"])
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename", "unlink"])
def test_an_error_at_each_call_of_a_save_is_a_typed_one_and_leaves_whole_files(
    zygote: Zygote, counted: Counter[str], tmp_path: Path, call: str, error: str
) -> None:
    for number in range(1, counted[call] + 1):
        injection = f"inject={call}:error={error}:when={number}"
        traced = Traced(zygote, tmp_path / str(number), "-e", f"trace={call}", "-e", injection)
        assert traced.code == 7, (number, traced.child.output)
        assert "\nStorageError: " in traced.child.output
        assert os.strerror(getattr(errno, error)) in traced.child.output
        assert temporary_files(traced.folder) == [], number
        assert traced.version() in (1, 2), number


@dataclass(frozen=True)
class Change:
    """A call that makes something durable, or visible, or goes."""

    call: str
    path: Path

    def __str__(self) -> str:
        return f"{self.call} {re.sub(r'[.]tmp-.*', '', self.path.name)}"


def changes(log: Path) -> list[Change]:
    """Reads what strace has logged, in the order in which the calls ended."""
    found = []
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        thread, _, text = line.partition(" ")
        if text.endswith("<unfinished ...>"):
            begun[thread] = text
            continue
        if "resumed>" in text:
            text = begun.pop(thread) + text
        match = re.match(r" *(fsync|rename|unlink)\((.*)", text)
        if match and not match[2].rpartition("= ")[2].startswith("-1"):
            paths = re.findall(r'[<"](/[^>"]*)[>"]', match[2])
            found.append(Change(match[1], Path(paths[-1])))
    return found


def test_a_new_save_synchronises_each_file_before_its_name_and_the_folder_after_it(
    zygote: Zygote, tmp_path: Path
) -> None:
    traced = Traced(zygote, tmp_path, "-e", "trace=fsync,rename,unlink", older=False)
    assert traced.code == 0, traced.child.output
    assert [str(change) for change in changes(traced.log)] == [
        "fsync .iter-1-ckpt.pth",
        "rename iter-1-ckpt.pth",
        "fsync run",
        "fsync .iter-1-ckpt.json",
        "rename iter-1-ckpt.json",
        "fsync run",
    ]


def test_at_every_save_of_a_training_the_order_is_kept_and_the_old_one_goes_last(
    zygote: Zygote, home: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    waiting = f"import os; gate = os.open({str(gate)!r}, os.O_RDWR); print('ready', flush=True); os.read(gate, 1)\n"
    child = zygote.run(waiting + training(max_step=12, save_step_interval=2, keep_last=2), home)
    with traced(child, tmp_path / "log", "-e", "trace=fsync,rename,unlink") as begin:
        begin(gate)
        assert child.wait() == 0, child.output
    run = home / "base" / "run"
    done = changes(tmp_path / "log")
    for step in range(2, 13, 2):
        names = [f"iter-{step}-ckpt.{ending}" for ending in ("pth", "json")]
        for name in names:
            renamed = done.index(Change("rename", run / name))
            assert f"fsync .{name}" in map(str, done[:renamed])
            assert Change("fsync", run) in done[renamed:]
        durable = done.index(Change("fsync", run), done.index(Change("rename", run / names[1])))
        if step > 4:
            gone = done.index(Change("unlink", run / f"iter-{step - 4}-ckpt.json"))
            assert durable < gone < done.index(Change("unlink", run / f"iter-{step - 4}-ckpt.pth"))
    assert finished(run) == {10, 12}


@contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """Lets a folder hold 8 MB; yields code that a process which is to feel it must run first.

    Where nobody may mount, a limit of the largest file says no in its place.
    """
    folder.mkdir(parents=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    try:
        yield "" if mounted else LIMITED
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_becomes_full_ends_the_run_as_crashed_and_keeps_what_was_saved(zygote: Zygote, home: Path) -> None:
    with small_disk(home) as code:
        child = zygote.run(code + training(250, save_step_interval=3), home)
        run = home / "base" / "run"
        assert child.wait() == 1, child.output
        assert re.search("StorageError.*(No space left on device|File too large)", child.output)
        assert child.output.count("Traceback") == 2, "the cause, once, and what came of it"
        assert temporary_files(run) == []
        assert problems(run) == []
        assert state(run) == "crashed"
        if not code:
            assert len(finished(run)) >= 2
            assert "No space left on device" in read_status(run).reason


def test_where_no_file_may_become_large_the_very_first_save_ends_the_run(zygote: Zygote, home: Path) -> None:
    child = zygote.run(LIMITED + training(400, save_step_interval=3), home)
    assert child.wait() == 1, child.output
    run = home / "base" / "run"
    assert "StorageError" in child.output
    assert "File too large" in read_status(run).reason
    assert (state(run), finished(run), temporary_files(run)) == ("crashed", set(), [])


# Tells, in the last step but one, which thread writes checkpoints, and waits for strace to take hold of it.
PAUSE = """
import os, threading, lightning
class Pause(lightning.Callback):
    def on_train_batch_start(self, trainer, *arguments):
        if trainer.global_step == 5:
            (thread,) = [item for item in threading.enumerate() if item.name.startswith("darkit-checkpoint")]
            gate = os.open({gate!r}, os.O_RDWR)
            print("writer", thread.native_id, "ready", flush=True)
            os.read(gate, 1)
"""


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_a_last_save_that_fails_ends_the_run_as_crashed_and_can_be_done_again(
    zygote: Zygote, home: Path, tmp_path: Path, call: str, error: str
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    settings = {"max_step": 6, "save_step_interval": 3}
    code = PAUSE.format(gate=str(gate)) + training(**settings, callbacks=Code("[Pause()]"))
    child = zygote.run(code, home)
    wait_until(lambda: "ready" in child.output, f"the last step but one: {child.output}")
    writer = int(child.output.partition("writer ")[2].split()[0])
    options = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1")
    with traced(child, tmp_path / "log", *options, thread=writer) as begin:
        begin(gate)
        assert child.wait() == 1, child.output
    run = home / "base" / "run"
    assert "StorageError" in child.output
    details = read_status(run)
    assert (details.state, details.step) == ("crashed", 6)
    assert os.strerror(getattr(errno, error)) in details.reason
    assert finished(run) == {3}
    assert (problems(run), temporary_files(run)) == ([], [])
    again = zygote.run(training(**settings), home)
    assert again.wait() == 0, again.output
    assert finished(run) == {3, 6}
