# ruff: noqa: E501
"""How well the dashboard follows runs that train: how late, in how many bytes, and in how much memory."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from dashboard_parts import DRAWN, STARTED, Writer, darkit_server, fresh, memory_of, pid_of, write_run
from playwright.sync_api import Browser

from darkit.runs import files


def bench_live(browser: Browser, work: Path, seconds: float) -> list[str]:
    """From a row in the file to the screen."""
    home = work / "live"
    folder = write_run(home / "base", "live", 20_000, state="running")
    with darkit_server(home) as address:
        page = fresh(browser)
        page.goto(f"{address}run/live")
        page.wait_for_function(DRAWN)
        with Writer(folder, 20_000) as writer:
            page.wait_for_timeout(4000)
            page.evaluate(WATCH)
            page.wait_for_timeout(seconds * 1000)
            seen = page.evaluate("window.seen")
        page.context.close()
    moments = np.array(sorted(writer.stamps))
    late = []
    (shown_before, _), *later = seen  # what came before the first look was not seen coming
    for last, when in later:
        rows = moments[(moments > shown_before) & (moments <= last)]
        late.extend(when / 1000 - writer.stamps[int(row)] for row in rows)
        shown_before = last
    return [
        f"row in the file to the screen at 1,000 rows/s|p95 {np.quantile(late, 0.95):.2f} s of {len(late)}|p95 under 0.6 s"
    ]


def bench_memory(browser: Browser, work: Path, minutes: float) -> list[str]:
    """The server's memory while a page looks at a run that logs 1,000 rows a second."""
    home = work / "memory"
    folder = write_run(home / "base", "live", 20_000, state="running")
    with darkit_server(home) as address:
        page = fresh(browser)
        page.goto(f"{address}run/live")
        page.wait_for_function(DRAWN)
        with Writer(folder, 20_000):
            pid = pid_of(home)
            page.wait_for_timeout(5000)
            memory = [memory_of(pid)]
            deadline = time.monotonic() + 60 * minutes
            while time.monotonic() < deadline:
                page.wait_for_timeout(1000)
                memory.append(memory_of(pid))
        page.context.close()
    first, last = memory[0], statistics.median(memory[-10:])
    columns = 60_000 * minutes * 6 * 9 / 2**20  # the log itself: six columns of doubles and a flag each
    return [
        f"memory of the server over {minutes:g} min of that|{first:.0f} to {last:.0f} MiB, {last / first - 1:+.1%} "
        f"(at most {max(memory):.0f}; the {60_000 * minutes:,.0f} new rows are {columns:.0f} MiB)|flat within 10 %"
    ]


WATCH = """() => {
    window.seen = [];
    const plot = document.querySelector('[data-chart=train_loss] .plot');
    let before = 0;
    const look = () => {
        const x = plot.data[0].x;
        const last = x[x.length - 1];
        if (last !== before) window.seen.push([last, Date.now()]);
        before = last;
        requestAnimationFrame(look);
    };
    look();
}"""


def bench_bytes(browser: Browser, work: Path) -> list[str]:
    home = work / "ten"
    folders = [write_run(home / "base", f"r{index}", 20_000, seed=index, state="running") for index in range(10)]
    sizes: list[int] = []
    answers: list[Any] = []
    with darkit_server(home) as address:
        page = fresh(browser)
        page.goto(address + "compare?" + "&".join(f"run=r{index}" for index in range(10)))
        page.wait_for_function(DRAWN)

        page.on("response", lambda answer: answers.append(answer) if answer.url.endswith("/api/news") else None)
        step = 20_000
        for _ in range(40):
            for folder in folders:
                with (folder / files.LOG).open("a") as log:
                    log.write(
                        "".join(
                            f"{at},1,{STARTED + at},0.001,{float(np.sin(at))!r},\n"
                            for at in range(step + 1, step + 251)
                        )
                    )
            step += 250
            page.wait_for_timeout(250)
        for answer in answers:
            if "bdata" in answer.text():
                sizes.append(len(answer.body()) + len(answer.request.post_data or ""))
        page.context.close()
    return [
        f"bytes per update of 10 live curves (question and answer)|{max(sizes) / 1000:.1f} kB at most of {len(sizes)}|at most 50 kB"
    ]
