# ruff: noqa: E501
"""Ten thousand runs: the time of `darkit runs`, of `darkit show` and of the dashboard's table, and what an idle page costs.

Run it as `python tests/benchmarks/many_runs.py [--runs 10000] [--home DIR] [--idle 60]`; it prints one table.

The runs are copies of a few genuine ones (`darkit.fit` on a tiny model, 200 steps), each with a name, an id, a state and a
start of its own; one in 500 says `running`, as if its process on this host had been killed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from dashboard_parts import darkit_server, memory_of, pid_of, timed
from playwright.sync_api import Browser, sync_playwright

from darkit.runs import files

ROWS = 200
ROUNDS = 5
STATES = ("finished", "finished", "finished", "stopped", "crashed")


def make_runs(home: Path, count: int) -> None:
    """Fill a home with copies of genuine runs, of which each has files of its own."""
    genuine = _train(home)
    base = home / "base"
    kept = (files.MODEL_CONFIG, files.TRAINER_CONFIG, files.ENVIRONMENT, files.MODEL_SOURCE)
    for number in range(count - len(genuine)):
        source = genuine[number % len(genuine)]
        folder = base / f"{source.name}-lr-{number:05d}"
        folder.mkdir()
        for name in kept:  # they never change, so all copies can be one file
            os.link(source / name, folder / name)
        info = files.read_json(source / files.RUN)
        status = files.read_json(source / files.STATUS)
        moment = info["created"] - 600.0 * number
        info |= {"id": f"{number:032x}", "name": folder.name, "created": moment, "seed": number}
        if number % 3 == 0:
            info["project"] = f"project-{number % 7}"
        state = "running" if number % 500 == 499 else STATES[number % len(STATES)]
        status |= {"state": state, "started": moment, "heartbeat": moment + 60.0}
        log = (source / files.LOG).read_text().replace("0.", f"0.{number % 9 + 1}")
        for name, content in (
            (files.RUN, json.dumps(info, indent=2)),
            (files.STATUS, json.dumps(status)),
            (files.LOG, log),
        ):
            (folder / name).write_text(content)
        if number % 10 == 0:
            (folder / files.NOTES).write_text(json.dumps({"tags": [f"tag-{number % 5}"], "note": "looks good"}))


def _train(home: Path) -> list[Path]:
    script = """
import sys, torch, darkit
x = torch.randn(64, 8)
for name, width in (("mlp", 8), ("wide", 16), ("deep", 4)):
    model = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
    darkit.fit(model, (x, x.sum(1, keepdim=True)), loss=torch.nn.functional.mse_loss, name=name, max_step=int(sys.argv[1]), batch_size=16,
               device="cpu", console=False, tensorboard=False)
"""
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home)}
    subprocess.run([sys.executable, "-c", script, str(ROWS)], check=True, env=environment, stdout=subprocess.DEVNULL)
    found = sorted((home / "base").iterdir())
    for folder in found:
        for checkpoint in folder.glob("iter-*"):
            checkpoint.unlink()
    return found


def _run(home: Path, *words: str) -> tuple[float, float]:
    """Run a command and return its seconds and those of its processor."""
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    command = [sys.executable, "-m", "darkit.cli.main", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _line(what: str, times: list[tuple[float, float]], goal: str) -> str:
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{what}|{wall:.2f} s, of the processor {cpu:.2f} s|{goal}"


def bench_list(home: Path, cache: Path) -> list[str]:
    """The list of runs, and a single run."""
    shutil.rmtree(cache, ignore_errors=True)
    first = [_run(home, "runs")]
    listed, as_json, shown = [], [], []
    name = sorted((home / "base").iterdir())[1].name
    for _ in range(ROUNDS):
        listed.append(_run(home, "runs"))
        as_json.append(_run(home, "runs", "--json"))
        shown.append(_run(home, "show", name))
    return [
        _line("`darkit runs`, the first time or without its index", first, ""),
        _line("`darkit runs`", listed, "at most 1.5 s, better 0.5 s"),
        _line("`darkit runs --json`", as_json, ""),
        _line("`darkit show NAME`", shown, "at most 0.5 s"),
    ]


def bench_page(browser: Browser, home: Path, count: int, cache: Path, idle: float) -> list[str]:
    """The table of the dashboard: after a start with and without the index, at a second visit, and idle."""
    filled = f"() => document.querySelector('#grid-box')?.dataset.filled === '{count}' && document.querySelector('.ag-row') !== null"
    shutil.rmtree(cache, ignore_errors=True)
    first = [timed(browser, lambda: darkit_server(home), lambda address: address, filled)]
    started = [timed(browser, lambda: darkit_server(home), lambda address: address, filled) for _ in range(3)]
    second = []
    with darkit_server(home) as address:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        for _ in range(4):
            page = context.new_page()
            begin = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_function(filled)
            second.append(time.perf_counter() - begin)
            if len(second) < 4:
                page.close()
        server = psutil.Process(pid_of(home))
        time.sleep(5)
        before, begin = server.cpu_times(), time.perf_counter()
        time.sleep(idle)
        after, seconds = server.cpu_times(), time.perf_counter() - begin
        used = (after.user + after.system - before.user - before.system) / seconds
        memory = memory_of(server.pid)
        context.close()
    return [
        f"start of the dashboard to table filled, without its index|{first[0]:.2f} s|",
        f"start of the dashboard to table filled|{statistics.median(started):.2f} s|at most 5 s",
        f"the same, a second visit|{statistics.median(second[1:]):.2f} s|at most 1.5 s",
        f"processor with the page open and idle, {idle:g} s|{100 * used:.1f} % of one core|under 3 %",
        f"memory of the server|{memory:.0f} MiB|under 500 MiB",
    ]


def main() -> int:
    """Make the runs, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--idle", type=float, default=60, help="how many seconds the idle page is watched")
    parser.add_argument("--home", type=Path, help="a home that was made by an earlier call, or is to be kept")
    chosen = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        print("This benchmark needs Chromium: make chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        home = chosen.home or Path(folder, "home")
        if not (home / "base").exists():
            make_runs(home, chosen.runs)
        count = len(list((home / "base").iterdir()))
        load = os.getloadavg()[0]
        print(f"\n{count:,} runs, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, load {load:.1f} before\n")
        print("| quantity | measured | goal |\n| --- | --- | --- |")
        lines = bench_list(home, Path(folder, "cache"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            lines += bench_page(browser, home, count, Path(folder, "cache"), chosen.idle)
            browser.close()
        for line in lines:
            print("| " + line.replace("|", " | ") + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
