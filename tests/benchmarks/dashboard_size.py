# ruff: noqa: E501
"""How the dashboard bears much: many rows and metrics to scroll, many curves beside trackio, and few bytes to load."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from dashboard_parts import STARTED, darkit_server, fresh, timed, write_run
from playwright.sync_api import Browser, Page

from darkit.runs import files

METRICS = 200
ROUNDS = 3
PORT = 17_860  # of trackio's server, and the next ones

# Scrolls for some seconds, a step each frame, and returns frames a second and the longest frame in milliseconds.
SCROLL = """async ([selector, step, seconds]) => {
    const place = selector ? document.querySelector(selector) : document.scrollingElement;
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const begin = await frame();
    let before = begin, now = begin, count = 0, longest = 0;
    while (now - begin < seconds * 1000) {
        if (place.scrollTop + place.clientHeight >= place.scrollHeight - 1) step = -Math.abs(step);
        if (place.scrollTop <= 0) step = Math.abs(step);
        place.scrollTop += step;
        now = await frame();
        longest = Math.max(longest, now - before);
        before = now;
        count += 1;
    }
    return [count * 1000 / (now - begin), longest];
}"""


def scrolled(page: Page, selector: str, step: int) -> str:
    """Scroll a part of a page, or all of it, and say how smoothly."""
    frames, longest = page.evaluate(SCROLL, [selector, step, 4])
    return f"{frames:.0f} frames/s, the longest {longest:.0f} ms"


def bench_scroll(browser: Browser, work: Path) -> list[str]:
    """3,000 runs: start to table, a second visit, and scrolling."""
    home = work / "three-thousand"
    for seed in range(3000):
        write_run(home / "base", f"run-{seed:04d}", 100, seed=seed)
    filled = "() => document.querySelector('#grid-box')?.dataset.filled === '3000' && document.querySelector('.ag-row') !== null"
    first = [timed(browser, lambda: darkit_server(home), lambda a: a, filled) for _ in range(ROUNDS)]
    second = []
    with darkit_server(home) as address:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        for _ in range(4):
            page = context.new_page()
            page.set_default_timeout(120_000)
            begin = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_function(filled)
            second.append(time.perf_counter() - begin)
            if len(second) < 4:
                page.close()
        page.wait_for_timeout(1500)
        smooth = scrolled(page, "#grid-box .ag-body-viewport", 90)
        context.close()
    return [
        f"3,000 runs, start to table filled|{statistics.median(first):.2f} s|at most 3 s",
        f"the same, a second visit|{statistics.median(second[1:]):.2f} s|at most 1.2 s",
        f"scrolling in it|{smooth}|at least 45 frames/s",
    ]


def bench_wide(browser: Browser, work: Path) -> list[str]:
    """Ten runs of 200 metrics compared: until the first charts can be used, and scrolling through all."""
    home = work / "wide"
    names = [f"wide-{seed}" for seed in range(10)]
    for seed, name in enumerate(names):
        folder = write_run(home / "base", name, 1000, seed=seed)
        values = np.random.default_rng(seed).normal(size=(1000, METRICS)).cumsum(axis=0)
        columns = [f"group{index // 20}/metric_{index}" for index in range(METRICS)]
        rows = (
            f"{step + 1},{STARTED + step!r}," + ",".join(f"{one:.6g}" for one in row) for step, row in enumerate(values)
        )
        (folder / files.LOG).write_text(",".join(["step", "time", *columns]) + "\n" + "\n".join(rows) + "\n")
        info = files.read_json(folder / files.RUN)
        files.write_json(folder / files.RUN, {**info, "series": {}})
    query = "compare?" + "&".join(f"run={name}" for name in names)
    usable = "() => document.querySelectorAll('.plot[data-drawn]').length >= 2"
    opened = []
    smooth = ""
    with darkit_server(home) as address:
        urllib.request.urlopen(address, timeout=20).close()
        time.sleep(2)  # the rest of the server is imported
        for _ in range(ROUNDS):
            page = fresh(browser)
            begin = time.perf_counter()
            page.goto(address + query, wait_until="commit")
            page.wait_for_function(usable)
            page.evaluate("() => new Promise((done) => requestIdleCallback(done))")
            opened.append(time.perf_counter() - begin)
            if len(opened) == ROUNDS:
                page.wait_for_timeout(1000)
                smooth = scrolled(page, "", 30)
            page.context.close()
    return [
        f"{METRICS} metrics x 10 runs, page opened to usable|{statistics.median(opened):.2f} s|at most 2 s",
        f"scrolling through them|{smooth}|at least 45 frames/s",
    ]


def bench_load(browser: Browser, work: Path) -> list[str]:
    """Bytes over the wire of a first visit from another machine, which the address of this one stands for."""
    home = work / "load"
    for seed in range(20):
        write_run(home / "base", f"run-{seed}", 1000, seed=seed)
    lines = []
    with darkit_server(home, "--host", "0.0.0.0") as link:
        for what, path, ready in (
            ("the runs", "", "() => document.querySelector('.ag-row') !== null"),
            ("a run", "run/run-3", "() => document.querySelector('.plot[data-drawn]') !== null"),
        ):
            page = fresh(browser)
            sizes: list[float] = []
            session = page.context.new_cdp_session(page)
            session.send("Network.enable")
            session.on("Network.loadingFinished", lambda event, sizes=sizes: sizes.append(event["encodedDataLength"]))
            address, _, token = link.partition("?")
            page.goto(f"{address}{path}?{token}")
            page.wait_for_function(ready)
            page.wait_for_load_state("networkidle") if not path else page.wait_for_timeout(3000)
            lines.append(
                f"first load of {what} from elsewhere|{sum(sizes) / 1e6:.2f} MB in {len(sizes)} answers|at most 2.5 MB"
            )
            page.context.close()
    return lines


@contextmanager
def trackio_server(store: Path, port: int) -> Iterator[str]:
    """trackio's dashboard."""
    script = f"import trackio; trackio.show('bench', open_browser=False, server_port={port})"
    environment = {**os.environ, "TRACKIO_DIR": str(store), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError("trackio's dashboard did not start") from None
                time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/?project=bench"
    finally:
        process.terminate()
        process.wait(20)


TRACKIO = """
import sys
from darkit.runs import Run
from pathlib import Path
from trackio.sqlite_storage import SQLiteStorage

for folder in sorted(Path(sys.argv[1]).iterdir()):
    log = Run(folder).log()
    losses = [{"train_loss": value} for value in log["train_loss"]]
    SQLiteStorage.bulk_log("bench", folder.name, losses, steps=log["step"].to_list())
"""


def bench_trackio(browser: Browser, work: Path) -> list[str]:
    """Ten runs of 10,000 rows: from the open page to their curves, beside trackio; each server runs already."""
    home, store = work / "ten-thousand", work / "trackio"
    names = [f"r{seed}" for seed in range(10)]
    for seed, name in enumerate(names):
        write_run(home / "base", name, 10_000, seed=seed)
    environment = {**os.environ, "TRACKIO_DIR": str(store)}
    subprocess.run([sys.executable, "-c", TRACKIO, str(home / "base")], check=True, env=environment)
    drawn = "() => document.querySelector('[data-chart=train_loss] .plot')?.data?.length >= 10"
    theirs_drawn = "() => document.querySelector('.vega-embed canvas, .vega-embed svg path') !== null"
    query = "compare?" + "&".join(f"run={name}" for name in names)
    ours, theirs = [], []

    def opened(address: str, ready: str) -> float:
        page = fresh(browser)
        begin = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_function(ready)
        seconds = time.perf_counter() - begin
        page.context.close()
        return seconds

    for turn in range(ROUNDS):
        with darkit_server(home) as address:
            time.sleep(2)
            ours.append(opened(address + query, drawn))
        with trackio_server(store, PORT + turn) as address:
            time.sleep(2)
            theirs.append(opened(address, theirs_drawn))
    mine, other = statistics.median(ours), statistics.median(theirs)
    return [
        f"10 runs x 10,000 rows, page to chart|{mine:.2f} s, trackio {other:.2f} s: {mine / other:.2f}x|at most 0.4x"
    ]
