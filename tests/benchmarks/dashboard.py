# ruff: noqa: E501
"""How quick the dashboard is, in a real Chromium, beside TensorBoard on the same data.

Run it as `python tests/benchmarks/dashboard.py [--seconds 60] [--only NAME ...]`; it prints one table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from darkit.runs import files

STARTED = 1_760_000_000.0
SPIKE = 654_321
TRAIN = """
import sys, time, torch
torch.set_num_threads(1)
from torch import nn
import darkit
x = torch.randn(4096, 64)
model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 1))
begin = time.perf_counter()
darkit.fit(model, (x, x.sum(1, keepdim=True)), loss=nn.functional.mse_loss, name=sys.argv[1], max_step=int(sys.argv[2]),
           batch_size=64, device="cpu", tensorboard=False, save_step_interval=0, eval_step_interval=0)
print("SECONDS", time.perf_counter() - begin)
"""


def write_run(
    root: Path, name: str, rows: int, *, seed: int = 0, spike: int | None = None, state: str = "finished"
) -> Path:
    """Writes a run directory in the trainer's format."""
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


@contextmanager
def darkit_server(home: Path) -> Iterator[str]:
    """A server of its own process; gives its address as soon as it is told."""
    command = [sys.executable, "-m", "darkit.cli.main", "start", "--port", "0", "--home", str(home)]
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


DRAWN = "() => document.querySelector('[data-chart=train_loss] .plot[data-drawn]') !== null"


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


@contextmanager
def tensorboard_server(folder: Path) -> Iterator[str]:
    """TensorBoard on a free port."""
    import socket

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
        "--load_fast",
        "false",
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
        f"1,000,000 rows, start to curve drawn|{mine:.2f} s, TensorBoard {other:.2f} s: {mine / other:.2f}x|at most 0.9x",
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


def twenty(work: Path) -> tuple[Path, str]:
    home = work / "twenty"
    if not home.exists():
        for seed in range(20):
            write_run(home / "base", f"long-{seed:02d}", 100_000, seed=seed)
    return home, "compare?" + "&".join(f"run=long-{seed:02d}" for seed in range(20))


def bench_compare(browser: Browser, work: Path) -> list[str]:
    home, query = twenty(work)
    firsts, zooms = [], []
    for _ in range(3):
        with darkit_server(home) as address:
            urllib.request.urlopen(address, timeout=60).close()  # it has started; what is measured is the page
            page = fresh(browser)
            begin = time.perf_counter()
            page.goto(address + query, wait_until="commit")
            page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot')?.data?.length >= 20")
            firsts.append(time.perf_counter() - begin)
            page.wait_for_timeout(1500)
            for low in (20_000, 40_000, 60_000):
                zooms.append(page.evaluate(ZOOM, low))
            page.context.close()
    return [
        f"20 runs of 100,000 rows compared, first draw|{statistics.median(firsts):.2f} s|at most 2.5 s",
        f"a zoom in it, until the finer points are drawn|{statistics.median(zooms):.2f} s|at most 0.4 s",
    ]


ZOOM = """async (low) => {
    const plot = document.querySelector('[data-chart=train_loss] .plot');
    const before = plot.dataset.drawn;
    const begin = performance.now();
    Plotly.relayout(plot, {'xaxis.range[0]': low, 'xaxis.range[1]': low + 3000});
    while (plot.dataset.drawn === before) await new Promise((done) => setTimeout(done, 5));
    await new Promise((done) => requestAnimationFrame(done));
    return (performance.now() - begin) / 1000;
}"""


def bench_live(browser: Browser, work: Path, seconds: float) -> list[str]:
    home = work / "live"
    folder = write_run(home / "base", "live", 20_000, state="running")
    stamps: dict[int, float] = {}
    ended = threading.Event()

    def write() -> None:
        step = 20_000
        begin = time.time()
        while not ended.is_set():
            due = 20_000 + int((time.time() - begin) * 1000)
            if due > step:
                now = time.time()
                lines = "".join(f"{at},1,{now!r},0.001,0.5,\n" for at in range(step + 1, due + 1))
                with (folder / files.LOG).open("a") as log:
                    log.write(lines)
                step = due
                stamps[step] = now
            time.sleep(0.001)

    with darkit_server(home) as address:
        page = fresh(browser)
        page.goto(f"{address}run/live")
        page.wait_for_function(DRAWN)
        writer = threading.Thread(target=write)
        writer.start()
        pid = pid_of(home)
        page.wait_for_timeout(4000)
        memory = [memory_of(pid)]
        page.evaluate(WATCH)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            page.wait_for_timeout(1000)
            memory.append(memory_of(pid))
        seen = page.evaluate("window.seen")
        ended.set()
        writer.join()
        page.context.close()
    moments = np.array(sorted(stamps))
    late = []
    shown_before = 0
    for last, when in seen:
        rows = moments[(moments > shown_before) & (moments <= last)]
        late.extend(when / 1000 - stamps[int(row)] for row in rows)
        shown_before = last
    late = late[len(late) // 10 :]
    quarter = len(memory) // 4 or 1
    grown = statistics.median(memory[-quarter:]) / statistics.median(memory[:quarter]) - 1
    return [
        f"row in the file to the screen at 1,000 rows/s|p95 {np.quantile(late, 0.95):.2f} s of {len(late)}|p95 at most 1 s",
        f"memory of the server over {seconds:.0f} s of that|{memory[0]:.0f} to {memory[-1]:.0f} MiB, {grown:+.1%}|flat within 10 %",
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


def bench_training(browser: Browser, work: Path) -> list[str]:
    home = work / "training"
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    steps = 6_000

    def train(name: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, name, str(steps)], env=environment, capture_output=True, text=True
        )
        return float(done.stdout.split("SECONDS")[1])

    train("warm-up")
    without, beside = [], []
    with darkit_server(home) as address:
        for turn in range(3):
            without.append(train(f"alone-{turn}"))
            page = fresh(browser)
            page.goto(address)
            page.wait_for_timeout(500)
            page.evaluate("name => darkit.go(darkit.runAddress(name))", f"alone-{turn}")
            page.goto(f"{address}compare?run=alone-{turn}&run=beside-{turn}")
            beside.append(train(f"beside-{turn}"))
            page.context.close()
    slower = statistics.median(beside) / statistics.median(without) - 1
    return [f"slow-down of a training with one page open|{slower:+.1%} ({os.cpu_count()} cores)|at most 3 %"]


def bench_clients(browser: Browser, work: Path, seconds: float) -> list[str]:
    import http.client

    home, _ = twenty(work)
    names = [f"long-{seed:02d}" for seed in range(20)]
    waits: list[float] = []
    codes: dict[int, int] = {}
    with darkit_server(home) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        headers = {"Content-Type": "application/json", "Origin": address.rstrip("/"), "Host": address.split("/")[2]}
        deadline = time.monotonic() + seconds
        lock = threading.Lock()

        def visit(seed: int) -> None:
            choose = np.random.default_rng(seed)
            while time.monotonic() < deadline:
                low = int(choose.integers(0, 20)) * 5000
                zoomed = bool(choose.random() < 0.1)
                view = {"low": low, "high": low + 3000} if zoomed else {}
                first = {"runs": names, "view": view, "charts": ["train_loss"]}
                cursors = {"train_loss": {name: [0, 100_000] for name in names}}
                for path, body in (
                    ("/api/charts", first),
                    *[("/api/news", {"runs": names, "view": {}, "cursors": cursors})] * 4,
                ):
                    begin = time.perf_counter()
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.request("POST", path, json.dumps(body), headers)
                    answer = connection.getresponse()
                    answer.read()
                    connection.close()
                    with lock:
                        waits.append(time.perf_counter() - begin)
                        codes[answer.status] = codes.get(answer.status, 0) + 1
                    time.sleep(float(choose.uniform(0.5, 3.0)) if path == "/api/charts" else 1.0)

        clients = [threading.Thread(target=visit, args=(seed,)) for seed in range(50)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    failures = sum(count for code, count in codes.items() if code >= 500)
    p95 = float(np.quantile(waits, 0.95))
    return [
        f"50 clients, 20 runs of 100,000 rows, {seconds:.0f} s|p95 {p95:.2f} s of {len(waits)} requests, {failures} failures|p95 under 1 s, no 5xx"
    ]


def main() -> int:
    """Runs the benchmarks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long the live and the crowded ones run")
    parser.add_argument("--only", nargs="*", default=[], help="million table compare live bytes training clients")
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
            "compare": lambda: bench_compare(browser, work),
            "live": lambda: bench_live(browser, work, chosen.seconds),
            "bytes": lambda: bench_bytes(browser, work),
            "training": lambda: bench_training(browser, work),
            "clients": lambda: bench_clients(browser, work, chosen.seconds),
        }
        for name, bench in benches.items():
            if not chosen.only or name in chosen.only:
                for line in bench():
                    print("| " + line.replace("|", " | ") + " |", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
