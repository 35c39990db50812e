"""A disk that fails at any call of a save: the old or the new file, a typed error, and nothing half-written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.runs.checkpoints import describe_checkpoint
from tests.children import Child, Zygote
from tests.faults.parts import finished, problems, state, strace, temporary_files, training

CALLS = ("openat", "write", "fsync", "rename", "unlink")
# Saves a first time elsewhere, so that nothing is loaded lazily later, then waits at a pipe to be traced.
SAVE = """
import os, torch
from pathlib import Path
from darkit.engine.checkpoints.checkpoint import write_checkpoint
from darkit.errors import StorageError
folder, elsewhere, gate = Path({folder!r}), Path({elsewhere!r}), {gate!r}
def save(where, version):
    content = {{"state_dict": {{"w": torch.full((64,), float(version))}}, "model_class": "M", "current_step": 1}}
    write_checkpoint(where, 1, content, metrics={{"val_loss": 1.0}}, run_id="id")
elsewhere.mkdir(exist_ok=True)
save(elsewhere, 0)
try:
    save(Path("/nonexistent"), 0)
except StorageError:
    pass
descriptor = os.open(gate, os.O_RDONLY)
os.read(descriptor, 1)
try:
    save(folder, 2)
except StorageError as error:
    print(type(error).__name__, error, flush=True)
    os._exit(7)
os._exit(0)  # at its end an interpreter opens files too
"""


class Traced:
    """A save into a folder that has an older version of the same step, traced from its first call on."""

    def __init__(self, zygote: Zygote, folder: Path, *options: str) -> None:
        self.folder = folder / "run"
        self.folder.mkdir(parents=True)
        self.log = folder / "strace.txt"
        gate = folder / "gate"
        os.mkfifo(gate)
        first = zygote.run(SAVE.format(folder=str(self.folder), elsewhere=str(self.folder), gate="/dev/null"), folder)
        assert first.wait() == 0, first.output  # version 2 is there already; version 0 takes its place
        code = SAVE.format(folder=str(self.folder), elsewhere=str(folder / "elsewhere"), gate=str(gate))
        self._reset()
        self.child: Child = zygote.run(code, folder)
        writer = os.open(gate, os.O_WRONLY)
        try:
            command = [strace(), "-f", "-y", "-o", str(self.log), "-p", str(self.child.pid), *options]
            tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            os.write(writer, b"g")
            self.code = self.child.wait()
            tracer.communicate(timeout=60)
        finally:
            os.close(writer)

    def _reset(self) -> None:
        """Make version 1 what is there before the traced save."""
        import torch

        from darkit.engine.checkpoints.checkpoint import write_checkpoint

        content = {"state_dict": {"w": torch.full((64,), 1.0)}, "model_class": "M", "current_step": 1}
        write_checkpoint(self.folder, 1, content, metrics={}, run_id="id")

    def version(self) -> float:
        """Read the version that is there now, as whoever resumes would."""
        checkpoint = describe_checkpoint(self.folder / "iter-1-ckpt.pth", 1)
        assert checkpoint is not None, "neither the old nor the new file"
        return float(read_checkpoint(checkpoint)["state_dict"]["w"][0])


def calls_of_a_save(zygote: Zygote, folder: Path) -> Counter[str]:
    traced = Traced(zygote, folder, "-e", f"trace={','.join(CALLS)}")
    assert traced.code == 0, traced.child.output
    assert traced.version() == 2
    return Counter(re.findall(r"^\d+ +(\w+)\(", traced.log.read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def counted(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    found = calls_of_a_save(zygote, tmp_path_factory.mktemp("count"))
    assert found["rename"] == 2, "the checkpoint and its manifest"
    assert found["fsync"] == 5, "each file and the folder after it, and the folder after the old manifest has gone"
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


@pytest.mark.few(5)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EACCES"])
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_an_error_at_each_call_of_a_save_is_a_typed_one_and_leaves_whole_files(
    zygote: Zygote, counted: Counter[str], tmp_path: Path, call: str, error: str
) -> None:
    for number in range(1, counted[call] + 1):
        injection = f"inject={call}:error={error}:when={number}"
        traced = Traced(zygote, tmp_path / str(number), "-e", f"trace={call}", "-e", injection)
        assert traced.code == 7, (number, traced.child.output)
        assert "StorageError" in traced.child.output
        assert temporary_files(traced.folder) == [], number
        assert traced.version() in (1, 2), number


def test_a_save_synchronises_each_file_before_its_name_and_the_folder_after_it(zygote: Zygote, tmp_path: Path) -> None:
    traced = Traced(zygote, tmp_path, "-e", "trace=fsync,rename,unlink")
    lines = re.findall(r"^\d+ +((?:fsync|rename|unlink)\(.*)", traced.log.read_text(), re.MULTILINE)
    order = []
    for line in lines:
        if not line.startswith("fsync"):
            order.append(f"{line.partition('(')[0]} " + re.findall(r'"[^"]*/([^"/]+)"', line)[-1])
        else:
            path = re.findall(r"<(.*?)>", line)[0]
            order.append(
                "sync folder" if path == str(traced.folder) else "sync " + path.rpartition("/")[2].split(".tmp")[0]
            )
    assert order == [
        "sync .iter-1-ckpt.pth",
        "unlink iter-1-ckpt.json",
        "sync folder",
        "rename iter-1-ckpt.pth",
        "sync folder",
        "sync .iter-1-ckpt.json",
        "rename iter-1-ckpt.json",
        "sync folder",
    ]


def test_a_disk_that_is_full_crashes_the_run_and_keeps_what_was_saved(
    zygote: Zygote, home: Path, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        home.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=True)
        limit = ""
    else:  # nobody else may mount: a limit of the largest file says no as a full disk does
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, 900_000))\n"
    try:
        child = zygote.run(limit + training(250, save_step_interval=3), home)
        run = home / "base" / "run"
        assert child.wait() == 1, child.output
        assert "StorageError" in child.output
        assert "No space left" in child.output or "File too large" in child.output
        assert temporary_files(run) == []
        assert problems(run) == []
        if os.geteuid() == 0:
            assert len(finished(run)) >= 2
            assert state(run) == "crashed"
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(home)], check=True)
