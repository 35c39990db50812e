"""Makes the pictures of the README: real runs, the dashboard, a real browser. `make screenshots` runs it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from torch import nn

import darkit
from darkit.errors import NonFiniteLossError
from darkit.runs.notes import Notes, write_notes
from tests.dashboard.conftest import served

PICTURES = Path(__file__).parents[2] / "docs"


class Curve(nn.Module):
    """A small network that learns a curve."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def train(home: Path) -> list[str]:
    """Train two widths with three seeds each, and one run that diverges."""
    torch.set_num_threads(1)
    names = []
    for width in (8, 64):
        for seed in range(3):
            name = f"curve-{width}-seed{seed}"
            fit(name, width, seed, 3e-3)
            write_notes(home / "base" / name, Notes((f"width {width}",)))
            names.append(name)
    with contextlib.suppress(NonFiniteLossError):
        fit("curve-64-too-fast", 64, 0, 1e30)
    return names


def fit(name: str, width: int, seed: int, lr: float) -> None:
    torch.manual_seed(seed)
    x = torch.rand(2048, 2) * 4 - 2
    y = torch.sin(3 * x[:, :1]) * x[:, 1:] + 0.1 * torch.randn(2048, 1)
    darkit.fit(
        Curve(width),
        (x[:1800], y[:1800]),
        (x[1800:], y[1800:]),
        loss=nn.functional.mse_loss,
        name=name,
        max_step=600,
        batch_size=64,
        lr=lr,
        seed=seed,
        device="cpu",
        tensorboard=False,
        eval_step_interval=50,
        save_step_interval=200,
    )


def main() -> int:
    program = shutil.which("chromium")
    if program is None:
        print("The pictures need Chromium: make chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        os.environ["DARWIN_KIT_HOME"] = str(home)
        with contextlib.redirect_stderr(io.StringIO()):  # a line per step
            names = train(home)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 860}, color_scheme="light", locale="en-US")
        with served(home / "base") as dashboard:
            page.goto(dashboard.address + "/")
            page.locator(".ag-row").first.wait_for()
            page.wait_for_timeout(500)
            page.screenshot(path=PICTURES / "dashboard-runs.png")
            chosen = "&".join(f"run={name}" for name in names)
            page.goto(f"{dashboard.address}/compare?{chosen}&smooth=0.9&log=1")
            page.wait_for_function("() => document.querySelectorAll('.plot[data-drawn]').length >= 3")
            page.wait_for_timeout(500)
            page.screenshot(path=PICTURES / "dashboard-compare.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
