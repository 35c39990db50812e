"""A warm process that forks one child per case, since starting an interpreter with torch takes seconds.

Reads JSON lines from standard input, ``{"code": ..., "environment": ..., "output": ...}`` to run code in a child with
its own process group, or ``{"wait": pid}``; answers with the child's pid, or its exit code (negative for a signal).
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import lightning  # noqa: F401 - what the children need is here before they are
import torch

import darkit.core
import darkit.engine.training  # noqa: F401


def run(code: str, environment: dict[str, str], output: str) -> None:
    """Becomes the child."""
    os.setsid()
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, descriptor), (2, descriptor)):
        os.dup2(source, target)
    status = 0
    try:
        exec(compile(code, "<case>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Serves until standard input ends."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            run(request["code"], request["environment"], request["output"])
        print(pid, file=answers, flush=True)


if __name__ == "__main__":
    main()
