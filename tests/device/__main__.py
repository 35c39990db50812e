"""``python -m tests.device``: the checks that need a GPU, as one table, in less than ten minutes."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator

import torch

from tests.device import checks
from tests.device.checks import Row

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")


def planned(device: str, count: int) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Yield each check with its name."""
    for precision in PRECISIONS:
        yield f"resume in {precision}", lambda precision=precision: checks.resumes_exactly(device, precision)
    yield "waits", lambda: checks.no_step_waits(device)
    yield "snapshots", lambda: checks.snapshots_are_pinned(device)
    yield "memory of a save", lambda: checks.memory_of_a_save(device)
    yield "stall of a save", lambda: checks.stall_of_a_save(device)
    yield "speed of gpt", lambda: checks.speed_of_gpt(device)
    for strategy in ("ddp", "fsdp"):
        yield strategy, lambda strategy=strategy: checks.several_processes(strategy, count)


def main() -> int:
    """Run all checks and print the table; return 1 if one fails, 2 without a GPU."""
    if not torch.cuda.is_available():
        print("No CUDA device is available: nothing was checked.", file=sys.stderr)
        return 2
    count = torch.cuda.device_count()
    print(f"{count} x {torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    print("| check | measured | must | |\n| --- | --- | --- | --- |")
    failed = 0
    for name, check in planned("cuda", count):
        started = time.monotonic()
        try:
            rows = check()
        except Exception:
            traceback.print_exc()
            rows = [Row(name, "failed with an error, see above", "", False)]
        for row in rows:
            failed += not row.good
            mark = "good" if row.good else "BAD"
            print(
                f"| {row.check} | {row.value} | {row.wanted} | {mark}, {time.monotonic() - started:.0f} s |", flush=True
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
