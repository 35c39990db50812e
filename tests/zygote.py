"""A warm process that forks one child per case, since starting an interpreter with torch and lightning takes seconds.

Serves a Unix socket whose path is its argument. A request is one JSON line, ``{"words": ..., "folder": ...,
"environment": ...}``, the words being those after ``python``, with the three standard streams beside it. It is
answered with the child's pid and, once the child has ended, its exit code (negative for a signal). A child whose
client is gone is killed with all that it started.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import hydra  # noqa: F401 - what the children need is here before they are
import hypothesis  # noqa: F401
import lightning  # noqa: F401
import numpy
import polars  # noqa: F401
import pytest  # noqa: F401
import torch

import darkit.cli.main
import darkit.core
import darkit.engine.training  # noqa: F401


def watch(connection: socket.socket, child: int) -> None:
    """Answers with how the child ends, or kills it when nobody is there to be answered."""
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.killpg(child, signal.SIGKILL)
    end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert end is not None
    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
        connection.recv(1)  # until the client has gone, the pid stays the child's
    os.waitpid(child, 0)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read a request and the streams beside it."""
    data, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    return json.loads(data), streams


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Make this process what the request asks for."""
    os.setsid()
    for target, source in enumerate(streams):
        os.dup2(source, target)
        os.close(source)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if "parent" in request:  # of the command that stands for this process
        os.getppid = lambda: int(request["parent"])
    if request["environment"].get("WARM_PYTHON"):  # for the processes that this one starts
        sys.executable = request["environment"]["WARM_PYTHON"]
    random.seed()
    numpy.random.seed()
    sys.orig_argv = [sys.executable, *request["words"]]
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors=errors, buffering=1 if os.isatty(number) or number == 2 else -1)  # noqa: SIM115, PTH123
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )


def execute(words: list[str]) -> None:
    """Do what ``python`` does with these words: ``-c`` code, ``-m`` a module, or a script."""
    words = words[words[0] == "-u" :]
    safe, words = words[0] == "-P", words[words[0] == "-P" :]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    inherited = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    first = str(Path(words[0]).resolve().parent) if not words[0].startswith("-") else os.getcwd()  # noqa: PTH109
    sys.path[:] = [*[first][safe:], *inherited, *(path for path in sys.path[1:] if path not in inherited)]
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.modules.pop(words[1], None)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    if words[0] == "-c":
        sys.argv, code, name = ["-c", *words[2:]], words[1], "<string>"
        sys.path[0] = ""
    else:
        sys.argv, code, name = words, Path(words[0]).read_text(encoding="utf-8"), words[0]
        main.__file__ = name
    exec(compile(code, name, "exec", dont_inherit=True), main.__dict__)


def end(words: list[str]) -> None:
    """Executes, and ends as an interpreter does, but for the second that it takes to tear all modules down."""
    code: Any = None
    try:
        execute(words)
    except SystemExit as asked:
        code = asked.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        trace: TracebackType | None = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.last_exc = sys.last_value = error  # type: ignore[attr-defined]
        sys.last_type, sys.last_traceback = type(error), trace
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 1 if not isinstance(error, KeyboardInterrupt) else -signal.SIGINT
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code or 0)


def serve(path: str) -> list[str]:
    """Serve until standard input ends or says so; return, in each child, the words of its case.

    A line of standard input names a module that later children need too.
    """
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(100)
    gc.freeze()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a watcher
    while True:
        if server not in select.select([server, sys.stdin], [], [])[0]:
            module = sys.stdin.readline().strip()
            if module in ("", "end"):
                break
            importlib.import_module(module)
            gc.freeze()
            print("ready", flush=True)
            continue
        connection, _ = server.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.close()
        request, streams = receive(connection)
        child = os.fork()
        if child:
            for stream in streams:
                os.close(stream)
            watch(connection, child)
            os._exit(0)
        connection.close()
        become(request, streams)
        return list(request["words"])
    os._exit(0)


if __name__ == "__main__":
    end(serve(sys.argv[1]))
