# ruff: noqa: E501
"""What the dashboard costs others: a training on the same machine, and fifty people who look at once."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from dashboard_parts import DRAWN, darkit_server, fresh, twenty
from playwright.sync_api import Browser

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
        for turn in range(2):
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
    home, query = twenty(work)
    names = [f"long-{seed:02d}" for seed in range(20)]
    waits: list[float] = []
    codes: dict[int, int] = {}
    with darkit_server(home) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        headers = {"Content-Type": "application/json", "Origin": address.rstrip("/"), "Host": address.split("/")[2]}
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

        page = fresh(browser)  # after whose visit the server knows the runs, as it does when there are fifty people
        page.goto(address + query)
        page.wait_for_function(DRAWN)
        page.context.close()
        deadline = time.monotonic() + seconds
        clients = [threading.Thread(target=visit, args=(seed,)) for seed in range(50)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    failures = sum(count for code, count in codes.items() if code != 200)
    p95 = float(np.quantile(waits, 0.95))
    return [
        f"50 clients, 20 runs of 100,000 rows, {seconds:.0f} s|p95 {p95:.2f} s of {len(waits)} requests, {failures} failures|p95 under 1 s, no 5xx"
    ]
