"""Reading runs, prediction and the dashboard without what only POSIX systems have, as on Windows."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import darkit

MODULES = ["fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"]
HIDDEN = {
    "os": "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK fork forkpty geteuid getgid getloadavg getpgid getuid killpg "
    "mkfifo mknod nice openpty posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev register_at_fork "
    "sched_getaffinity sendfile setsid statvfs sync uname wait wait3 wait4",
    "signal": "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 SIGWINCH alarm "
    "pthread_kill pthread_sigmask setitimer sigwait",
    "socket": "AF_UNIX SO_REUSEPORT",
    "time": "tzset",
}
WINDOWS = """
import builtins, json, sys
blocked, hidden = json.loads(sys.argv[1])
real = builtins.__import__

class Module:
    def __init__(self, module, names):
        object.__setattr__(self, "_real", (module, names))
    def __getattr__(self, name):
        module, names = self._real
        if name in names:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} on Windows")
        return getattr(module, name)
    def __setattr__(self, name, value):
        setattr(self._real[0], name, value)

def load(name, globals=None, locals=None, fromlist=(), level=0):
    ours = str((globals or {}).get("__name__")).partition(".")[0] == "darkit"
    if ours and name.partition(".")[0] in blocked:
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    module = real(name, globals, locals, fromlist, level)
    return modules.setdefault(name, Module(module, set(hidden[name].split()))) if ours and name in hidden else module

modules = {}
builtins.__import__ = load
"""


def on_windows(home: Path, script: str) -> str:
    """Run a script in which darkit's own modules see only what Windows has, and return what it prints."""
    command = [sys.executable, "-c", WINDOWS + textwrap.dedent(script), json.dumps([MODULES, HIDDEN])]
    environment = {"DARWIN_KIT_HOME": str(home), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def trained(home: Path) -> Path:
    """The folder of a run that was trained here."""
    data = torch.randn(16, 2), torch.randn(16, 1)
    return darkit.fit(nn.Linear(2, 1), data, data, loss=nn.functional.mse_loss, max_step=2, name="run").path


def test_the_simulation_hides_what_windows_lacks_from_darkit_alone(home: Path) -> None:
    home.mkdir()
    shown = on_windows(
        home,
        """
        import darkit, fcntl, os
        os.O_NOFOLLOW
        own = {"__name__": "darkit.runs.lock"}
        for code in ("import fcntl", "import os; os.O_NOFOLLOW", "from os import fork"):
            try:
                exec(code, own)
            except (ImportError, AttributeError) as error:
                print(type(error).__name__)
        """,
    )
    assert shown.split() == ["ModuleNotFoundError", "AttributeError", "ImportError"]


def test_runs_are_listed_and_read_and_annotated(trained: Path, home: Path) -> None:
    shown = on_windows(
        home,
        """
        import darkit
        from darkit.runs.notes import Notes, read_notes, write_notes
        (run,) = darkit.runs()
        write_notes(run.path, Notes(note="seen"))
        print(run.name, run.status, run.log()["step"].to_list()[-1], read_notes(run.path).note)
        """,
    )
    assert shown.split() == ["run", "finished", "2", "seen"]
    assert not (trained / ".notes.lock").exists()


def test_a_link_in_the_place_of_a_file_is_not_followed(trained: Path, home: Path) -> None:
    (trained / "notes.json").symlink_to(trained / "run.json")
    shown = on_windows(
        home,
        """
        import darkit
        from darkit.runs.notes import read_notes
        print(read_notes(darkit.load("run").path).problem)
        """,
    )
    assert shown.startswith("notes.json: it is a link")


def test_a_model_predicts(trained: Path, home: Path) -> None:
    shown = on_windows(
        home,
        """
        import torch
        from darkit.core import Predicter
        print(Predicter.from_pretrained("run", "cpu").predict(torch.zeros(1, 2)).tolist())
        """,
    )
    (row,) = json.loads(shown)
    assert len(row) == 1


def test_the_dashboard_is_made_and_reads_a_log(trained: Path, home: Path) -> None:
    shown = on_windows(
        home,
        """
        import threading
        import darkit
        from darkit.dashboard.reading.tail import LogTail
        from darkit.dashboard.server import serve
        from darkit.dashboard.server.app import create_app
        from darkit.dashboard.server.connections import most_connections
        run = darkit.load("run")
        before = set(threading.enumerate())
        create_app(run.path.parent)
        for thread in set(threading.enumerate()) - before:  # it makes the pages, and an end in the middle may fail
            thread.join(60)
        print(most_connections() > 0, LogTail(run.path / "train_log.csv").refresh().column("step").tolist())
        """,
    )
    assert shown.split(maxsplit=1) == ["True", "[1.0, 2.0]\n"]


def test_a_training_is_refused_by_one_sentence(home: Path) -> None:
    home.mkdir()
    shown = on_windows(
        home,
        """
        import darkit, torch
        data = torch.zeros(4, 2), torch.zeros(4, 1)
        try:
            darkit.fit(torch.nn.Linear(2, 1), data, loss=torch.nn.functional.mse_loss, max_step=1, name="new")
        except darkit.errors.StorageError as error:
            print(error)
        """,
    )
    assert shown.startswith("Cannot lock the run in")
    assert "use Linux or WSL" in shown
