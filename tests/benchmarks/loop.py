"""What ``run.log`` costs the training thread, by kind of value: ``python tests/benchmarks/loop.py CONTENDER``.

Between the calls the thread computes for about 100 us, so that the log's thread works beside it as in a training.
Prints the median of single calls in microseconds, without what reading the clock costs.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

CALLS = 20_000
LOSS = torch.tensor(0.5)
VALUES: dict[str, Callable[[int], dict[str, Any]]] = {
    "floats": lambda step: {"loss": 0.5 / (step + 1), "acc": 0.25},
    "floats_and_ints": lambda step: {"loss": 0.5 / (step + 1), "acc": 0.25, "tokens": step},
    "cpu_tensor": lambda step: {"loss": LOSS, "acc": 0.25},
    "second_call_of_a_step": lambda step: {"val_loss": 0.5},
}


def main(contender: str) -> None:
    """Measures one kind of value."""
    import darkit

    torch.set_num_threads(1)
    make = VALUES[contender]
    block = torch.ones(64, 64)
    calls, clock = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        os.environ["DARWIN_KIT_HOME"] = folder
        with darkit.start_run("bench") as run:
            for step in range(CALLS):
                block = torch.tanh(block @ block)
                values = make(step)
                if contender == "second_call_of_a_step":
                    run.log({"loss": 0.5}, step=step)
                before = time.perf_counter()
                run.log(values, step=step)
                calls.append(time.perf_counter() - before)
                before = time.perf_counter()
                clock.append(time.perf_counter() - before)
    print((statistics.median(calls[CALLS // 10 :]) - statistics.median(clock)) * 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
