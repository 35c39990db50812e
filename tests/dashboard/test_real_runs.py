"""Runs as darkit makes them: a hand-written loop has times, media and settings; a diverged run shows NaN."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Served
from tests.dashboard.screen import drawn, trace

Open = Callable[..., Page]
LOOP = """
import time, torch, darkit
with darkit.start_run("loop", max_step=20) as run:
    for step in range(1, 21):
        time.sleep(0.005)
        more = {"weights": darkit.Histogram(torch.randn(50))} if step % 10 == 0 else {}
        run.log({"loss": 1 / step, **more}, step=step)
"""
DIVERGED = """
import torch, darkit
from darkit.errors import DarkitError
from torch import nn
x = torch.ones(64, 2)
class Grows(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.calls = 0
    def forward(self, x):
        self.calls += self.training
        return self.layer(x) * (float("nan") if self.calls > 15 else 1.0)
for name in ("stop", "warn"):
    torch.manual_seed(0)
    with_nan = dict(loss=nn.functional.mse_loss, name=f"nan-{name}", max_step=30, batch_size=8, device="cpu", lr=0.01)
    try:
        darkit.fit(Grows(), (x, x[:, :1]), nan_policy=name, tensorboard=False, **with_nan)
    except DarkitError as error:
        print(error)
"""


def test_a_loop_of_ones_own_has_a_clock_and_a_run_that_diverged_is_seen_as_such(
    python: str, dashboard: Served, open_page: Open
) -> None:
    for script in (LOOP, DIVERGED):
        subprocess.run([python, "-c", script], check=True, capture_output=True, timeout=240)
    page = open_page(dashboard.address + "/?col=state&col=name&col=rate&col=duration&col=last:train_loss")
    for name in ("nan-stop", "nan-warn"):
        row = page.locator(f'.ag-row[row-id="{name}"]')
        expect(row.locator(".state-diverged")).to_have_attribute("title", re.compile("not finite from step 16 on"))
        expect(row.locator('[col-id="last:train_loss"]')).to_have_text("NaN")
        page.goto(f"{dashboard.address}/run/{name}")
        expect(page.locator("#run-lost")).to_have_text("train_loss is not finite from step 16 on.")
        page.go_back()
    page.goto(dashboard.address + "/run/loop?axis=relative")
    drawn(page, 1)
    seconds = trace(page, "loss", "loop")["x"]
    assert len(seconds) == 20
    assert seconds == sorted(seconds)
    assert 0.09 < seconds[-1] < 60
    expect(page.locator("#run-progress .tile", has_text="Duration")).to_be_visible()
    page.get_by_role("tab", name="Media").click()
    expect(page.locator('[data-media="histogram:weights"] .distribution[data-drawn]')).to_be_visible()
    page.goto(dashboard.address + "/run/nan-warn?tab=overview")
    facts = page.locator("#tab-overview dl, dl").filter(has_text="Parameters")
    expect(facts).to_contain_text("3, of which 3 are trained")
    expect(facts).to_contain_text(re.compile(r"[\d.]+ samples/s"))
    expect(facts).to_contain_text("64 per step")
    page.goto(dashboard.address + "/run/nan-warn?tab=config")
    defaults = page.locator("tr.default th")
    expect(defaults.filter(has_text="weight_decay")).to_have_count(1)
    expect(defaults.filter(has_text="max_step")).to_have_count(0)
