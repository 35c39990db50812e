"""Children of a warm process: what a new interpreter would do, without the seconds that it takes to start one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

CHECKOUT = Path(__file__).parents[1]
LIMIT = 120.0  # seconds; a busy machine is not a fault

# What stands in for ``python`` and for ``darkit`` in a command: light, since it imports next to nothing.
COMMAND = """#!{python} -IS
import json, os, signal, socket, sys
words = {words} + sys.argv[1:]
request = {{"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "parent": os.getppid()}}
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps(request).encode() + b"\\n")
    answers = server.makefile()
    child = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda sent, frame: os.kill(child, sent))
    code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""
DARKIT = "import sys; from darkit.cli.main import main; sys.argv[0] = 'darkit'; sys.exit(main())"


def torchrun(zygote: Zygote, home: Path, *words: str, code: int = 0) -> str:
    """Run a script in two warm processes by torchrun, which ends with this exit code; return what they said."""
    options = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    warm = {"PYTHONPATH": str(CHECKOUT), "WARM_PYTHON": zygote.python, "PYTHON_EXEC": zygote.python}
    child = zygote.start([*options, *words], home, OMP_NUM_THREADS="1", **warm)
    assert child.wait() == code, child.output[-4000:]
    return child.output


class Child:
    """A process that runs one case."""

    def __init__(self, connection: socket.socket, output: Path) -> None:
        self.connection, self.path = connection, output
        self.answers = connection.makefile()
        self.pid = int(self.answers.readline())

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.path.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        os.kill(self.pid, number)

    def kill_group(self) -> int:
        """Kill it and everything it has started; return its exit code."""
        os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def kill_rest(self) -> None:
        """Kill what it has left behind in its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        with self.connection, self.answers:
            return int(self.answers.readline())


class Zygote:
    """Starts children from a process that has torch, lightning and darkit in it already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        path = str(folder / "socket")
        self.commands = folder / "bin"
        self.commands.mkdir()
        self.python = self._command("python", [], path)
        self.darkit = self._command("darkit", ["-c", DARKIT], path)
        self._command("DarwinKit", ["-c", DARKIT], path)  # the same command
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)},
            start_new_session=True,  # what ends the tests as a group must not end those who end the children
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("end\n")  # data workers that a test left may hold the pipe open
        self.process.stdin.close()
        self.process.wait(timeout=LIMIT)
        self.process.stdout.close()

    def preload(self, module: str) -> None:
        """Import a module once for all later children."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{module}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ready\n"

    def run(self, code: str, home: Path, **environment: str) -> Child:
        """Start a child that runs code."""
        return self.start(["-c", code], home, **environment)

    def start(self, words: list[str], home: Path, **environment: str) -> Child:
        """Start a child that does what ``python`` does with these words."""
        self.count += 1
        output = self.folder / f"{self.count}.txt"
        variables = {**os.environ, "DARWIN_KIT_HOME": str(home)} | environment
        request = {"words": words, "folder": str(CHECKOUT), "environment": variables}
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        with output.open("ab") as written, open(os.devnull) as null:  # noqa: PTH123
            socket.send_fds(connection, [b" "], [null.fileno(), written.fileno(), written.fileno()])
            connection.sendall(json.dumps(request).encode() + b"\n")
        return Child(connection, output)

    def _command(self, name: str, words: list[str], path: str) -> str:
        command = self.commands / name
        command.write_text(COMMAND.format(python=sys.executable, words=words, path=path))
        command.chmod(0o755)
        return str(command)
