"""How quick the dashboard is, in a real Chromium, beside TensorBoard on the same data.

Run it as `python tests/benchmarks/dashboard.py [--only NAME ...] [--seconds 60] [--minutes 10]`; it prints one table.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dashboard_live import bench_bytes, bench_live, bench_memory
from dashboard_load import bench_clients, bench_training
from dashboard_size import bench_load, bench_scroll, bench_trackio, bench_wide
from dashboard_start import bench_compare, bench_million, bench_table
from playwright.sync_api import sync_playwright

NAMES = (
    *(
        "million",
        "table",
        "scroll",
        "compare",
        "wide",
        "trackio",
        "load",
        "live",
        "bytes",
        "training",
        "clients",
        "memory",
    ),
)


def main() -> int:
    """Run the benchmarks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long the live and the crowded ones run")
    parser.add_argument("--minutes", type=float, default=10, help="how long the memory is watched")
    parser.add_argument("--only", nargs="*", default=[], choices=NAMES, help="which ones, instead of all")
    parser.add_argument("--without", nargs="*", default=[], choices=NAMES, help="which ones not")
    chosen = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        print("These benchmarks need Chromium: make chromium", file=sys.stderr)
        return 2
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}\n")
    print("| what | measured | must be |\n| --- | --- | --- |")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        work = Path(folder)
        benches: dict[str, Callable[[], list[str]]] = {
            "million": lambda: bench_million(browser, work),
            "table": lambda: bench_table(browser, work),
            "scroll": lambda: bench_scroll(browser, work),
            "compare": lambda: bench_compare(browser, work),
            "wide": lambda: bench_wide(browser, work),
            "trackio": lambda: bench_trackio(browser, work),
            "load": lambda: bench_load(browser, work),
            "live": lambda: bench_live(browser, work, chosen.seconds),
            "bytes": lambda: bench_bytes(browser, work),
            "training": lambda: bench_training(browser, work),
            "clients": lambda: bench_clients(browser, work, chosen.seconds),
            "memory": lambda: bench_memory(browser, work, chosen.minutes),
        }
        for name, bench in benches.items():
            if name not in chosen.without and (not chosen.only or name in chosen.only):
                for line in bench():
                    print("| " + line.replace("|", " | ") + " |", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
