"""How soon a command is done or shows something: ``python tests/benchmarks/start.py CONTENDER [minimal]``.

Prints the seconds from the start of a new interpreter to its end, or to the first character that it prints; with
``minimal`` of one that has only what darkit requires.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from frame import MINIMAL

TRAIN = ("-m", "darkit.train", "model=mymodel", "trainer.max_step=1")
CONTENDERS = {
    "import_torch": ("-c", "import torch"),
    "import_lightning": ("-c", "import torch, lightning"),
    "train": TRAIN,
    "predict": ("-m", "darkit", "predict", "run", str([[0.5] * 12])),
}


def main(contender: str, where: str = "") -> None:
    """Print the seconds of one contender."""
    python = str(MINIMAL) if where == "minimal" else sys.executable
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DARWIN_KIT_HOME": folder, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled files are kept, as they are for people
        if contender == "predict":
            subprocess.run([python, *TRAIN, "name=run"], env=environment, cwd=folder, check=True, stdout=sys.stderr)
        begin = time.perf_counter()
        process = subprocess.Popen(
            [python, *CONTENDERS[contender]],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
        )
        assert process.stdout is not None
        if contender == "predict" and process.stdout.read(1):
            seconds = time.perf_counter() - begin
        process.communicate()
        if contender != "predict":
            seconds = time.perf_counter() - begin
        if process.returncode:
            raise SystemExit(process.returncode)
    print(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
