# ruff: noqa: E501
"""How soon the dashboard shows something: from the start of its server to the curve, the table and the comparison."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dashboard_parts import DRAWN, darkit_server, fresh, timed, twenty, write_run
from playwright.sync_api import Browser

from darkit.runs import files

SPIKE = 654_321


@contextmanager
def tensorboard_server(folder: Path) -> Iterator[str]:
    """TensorBoard on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def write_events(folder: Path, run: Path) -> None:
    """The same losses as TensorBoard's events."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder / "million"), max_queue_size=10_000)
    for line in (run / files.LOG).read_text().splitlines()[1:]:
        step, _, clock, _, loss, _ = line.split(",")
        value = Summary(value=[Summary.Value(tag="train_loss", simple_value=float(loss))])
        writer.add_event(Event(wall_time=float(clock), step=int(step), summary=value))
    writer.close()


def bench_million(browser: Browser, work: Path) -> list[str]:
    home = work / "million"
    run = write_run(home / "base", "million", 1_000_000, spike=SPIKE)
    events = work / "events"
    write_events(events, run)
    ours, theirs = [], []
    shown = """() => performance.getEntriesByType('resource').some((one) => one.name.includes('/timeSeries') && one.responseEnd)
        && document.querySelector('line-chart canvas, line-chart svg path') !== null"""
    for _ in range(3):
        ours.append(timed(browser, lambda: darkit_server(home), lambda a: f"{a}run/million", DRAWN))
        theirs.append(timed(browser, lambda: tensorboard_server(events), lambda a: f"{a}#timeseries", shown))
    with darkit_server(home) as address:
        page = fresh(browser)
        page.goto(f"{address}run/million")
        page.wait_for_function(DRAWN)
        peak = page.evaluate("Math.max(...document.querySelector('[data-chart=train_loss] .plot').data[0].y)")
        page.context.close()
    mine, other = statistics.median(ours), statistics.median(theirs)
    return [
        f"1,000,000 rows, start to curve drawn|{mine:.2f} s, TensorBoard {other:.2f} s: {mine / other:.2f}x|at most 0.75x, better 0.6x",
        f"its one-step spike of 50|shown as {peak:g}|visible",
    ]


def bench_table(browser: Browser, work: Path) -> list[str]:
    home = work / "thousand"
    for seed in range(1000):
        write_run(home / "base", f"run-{seed:04d}", 1000, seed=seed)
    filled = "() => document.querySelector('#grid-box')?.dataset.filled === '1000' && document.querySelector('.ag-row') !== null"
    first = [timed(browser, lambda: darkit_server(home), lambda a: a, filled) for _ in range(3)]
    second = []
    with darkit_server(home) as address:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        for _ in range(4):
            page = context.new_page()
            begin = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_function(filled)
            second.append(time.perf_counter() - begin)
            page.close()
        context.close()
    return [
        f"1,000 runs of 1,000 rows, start to table filled|{statistics.median(first):.2f} s|at most 3 s",
        f"the same, a second visit|{statistics.median(second[1:]):.2f} s|at most 1.5 s",
    ]


def bench_compare(browser: Browser, work: Path) -> list[str]:
    home, query = twenty(work)
    firsts, zooms = [], []
    for _ in range(3):
        firsts.append(timed(browser, lambda: darkit_server(home), lambda a: a + query, ALL_DRAWN))
    with darkit_server(home) as address:
        for _ in range(3):
            page = fresh(browser)
            page.goto(address + query)
            page.wait_for_function(ALL_DRAWN)
            page.wait_for_timeout(1500)
            for low in (20_000, 40_000, 60_000):
                zooms.append(page.evaluate(ZOOM, low))
            page.context.close()
    return [
        f"20 runs of 100,000 rows compared, start to first draw|{statistics.median(firsts):.2f} s|at most 2.3 s",
        f"a zoom in it, until the finer points are drawn|{statistics.median(zooms):.2f} s|at most 0.4 s",
    ]


ALL_DRAWN = "() => document.querySelector('[data-chart=train_loss] .plot')?.data?.length >= 20"
ZOOM = """async (low) => {
    const plot = document.querySelector('[data-chart=train_loss] .plot');
    const before = plot.dataset.drawn;
    const begin = performance.now();
    Plotly.relayout(plot, {'xaxis.range[0]': low, 'xaxis.range[1]': low + 3000});
    while (plot.dataset.drawn === before) await new Promise((done) => setTimeout(done, 5));
    await new Promise((done) => requestAnimationFrame(done));
    return (performance.now() - begin) / 1000;
}"""
