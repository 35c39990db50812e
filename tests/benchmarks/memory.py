"""The peak memory of a training without saves: ``python tests/benchmarks/memory.py CONTENDER``.

Prints MB of a process with only what darkit requires, which trains the tiny model of ``steps.py``.
"""

from __future__ import annotations

import subprocess
import sys

from frame import FOLDER, MINIMAL

CONTENDERS = ("plain", "darkit_full")

if __name__ == "__main__":
    command = [str(MINIMAL), str(FOLDER / "steps.py"), sys.argv[1], "memory"]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
