"""What the benchmarks of the dashboard share: runs on disk, servers, pages, and how much memory one takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page

from darkit.runs import files

STARTED = 1_760_000_000.0
DRAWN = "() => document.querySelector('[data-chart=train_loss] .plot[data-drawn]') !== null"


def write_run(
    root: Path, name: str, rows: int, *, seed: int = 0, spike: int | None = None, state: str = "finished"
) -> Path:
    """Write a run directory in the trainer's format."""
    folder = root / name
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    step = np.arange(1, rows + 1)
    loss = 3 * np.exp(-4 * step / rows) + 0.4 + noise.normal(0, 0.05, rows)
    if spike:
        loss[spike - 1] = 50.0
    facts = {"id": str(seed), "created": STARTED + seed, "model": {"class": "demo.MLP"}}
    facts["series"] = {"train_loss": ["step", "train_loss"], "val_loss": ["step", "val_loss"]}
    files.write_json(folder / files.RUN, facts)
    files.write_json(folder / files.MODEL_CONFIG, {"width": 64 + seed % 7, "depth": seed % 3})
    files.write_json(folder / files.TRAINER_CONFIG, {"lr": 10.0 ** -(seed % 4), "device": "cpu", "seed": seed})
    status = {"state": state, "step": rows, "max_step": rows, "started": STARTED + seed, "heartbeat": time.time()}
    files.write_json(folder / files.STATUS, {**status, "host": "elsewhere", "pid": 1, "reason": "", "traceback": ""})
    lines = (
        f"{at},{at // 100},{STARTED + at * 0.01!r},0.001,{value!r},{value + 0.1 if at % 50 == 0 else ''}\n"
        for at, value in zip(step.tolist(), loss.tolist(), strict=True)
    )
    (folder / files.LOG).write_text("step,epoch,time,lr,train_loss,val_loss\n" + "".join(lines))
    return folder


def twenty(work: Path) -> tuple[Path, str]:
    home = work / "twenty"
    if not home.exists():
        for seed in range(20):
            write_run(home / "base", f"long-{seed:02d}", 100_000, seed=seed)
    return home, "compare?" + "&".join(f"run=long-{seed:02d}" for seed in range(20))


class Writer:
    """Logs rows to a run at an even rate until it is left, and knows when each was written.

    Args:
        folder: The run directory.
        first: The step before the first one to write.
        rate: Rows a second.
    """

    def __init__(self, folder: Path, first: int, rate: int = 1000) -> None:
        self.stamps: dict[int, float] = {}
        self._log = folder / files.LOG
        self._first = first
        self._rate = rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        step = self._first
        begin = time.time()
        while not self._ended.is_set():
            due = self._first + int((time.time() - begin) * self._rate)
            if due > step:
                now = time.time()
                lines = "".join(f"{at},1,{now!r},0.001,0.5,\n" for at in range(step + 1, due + 1))
                with self._log.open("a") as log:
                    log.write(lines)
                step = due
                self.stamps[step] = now
            time.sleep(0.001)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def darkit_server(home: Path, *options: str) -> Iterator[str]:
    """A server of its own process; gives its address as soon as it is told."""
    command = [sys.executable, "-m", "darkit.cli.main", "start", "--port", "0", "--home", str(home), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)


def pid_of(home: Path) -> int:
    """The process that serves a home."""
    found = subprocess.run(["pgrep", "-f", f"start --port 0 --home {home}"], capture_output=True, text=True)
    return int(found.stdout.split()[0])


def memory_of(pid: int) -> float:
    """Resident memory in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fresh(browser: Browser) -> Page:
    """A page without anything cached."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.set_default_timeout(120_000)
    return page


def timed(browser: Browser, start: Callable[[], Any], open_address: Callable[[str], str], ready: str) -> float:
    """Seconds from the start of a server to what is ready on a new page."""
    begin = time.perf_counter()
    with start() as address:
        page = fresh(browser)
        page.goto(open_address(address), wait_until="commit")
        page.wait_for_function(ready)
        seconds = time.perf_counter() - begin
        page.context.close()
    return seconds
