"""Makes the pictures of the README, docs/dashboard.md and docs/beyond.md, of real runs. `make screenshots` runs it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, sync_playwright
from torch import nn

import darkit
from darkit.dashboard.offline import report
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.terminal.app import Top
from darkit.dashboard.view import View
from darkit.errors import NonFiniteLossError
from darkit.prediction.evaluation import evaluate_run
from darkit.runs.notes import Notes, write_notes
from darkit.runs.trash import move_to_trash
from darkit.runs.views import save_view
from tests.dashboard.conftest import served
from tests.dashboard.parts import finish

PICTURES = Path(__file__).parents[2] / "docs"
_COLOURS = 256


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


def fit(name: str, width: int, seed: int, lr: float, fork: str | None = None) -> None:
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
        fork=fork,
    )


def record_layers() -> None:
    """Record a run of six layers, of which one stops firing, with an image of the spikes."""
    rng = np.random.default_rng(0)
    with darkit.start_run("layers", config={"layers": 6, "lr": 1e-3}) as run:
        for step in range(1, 301):
            rates = np.array([0.34, 0.3, 0.26, 0.22, 0.18, 0.14]) + rng.normal(0, 0.006, 6)
            rates[3] *= np.exp(-max(0, step - 120) / 8)
            row = {
                "train_loss": 2 * np.exp(-step / 90) + 0.1 + rng.normal(0, 0.02),
                "val_acc": 0.93 - np.exp(-step / 60),
            }
            row |= {f"firing_rate_{layer}": max(0.0, rate) for layer, rate in enumerate(rates)}
            if step % 100 == 0:
                fired = rng.random((48, 120)) < np.repeat(rates, 8)[:, None]
                row["spikes"] = darkit.Image((255 * fired).astype("uint8"), caption=f"step {step}")
            run.log(row, step=step)


def arrange(home: Path) -> None:
    """Evaluate a run on other data, save views of the table, and delete two runs."""
    x = torch.rand(512, 2, generator=torch.Generator().manual_seed(9)) * 4 - 2
    sets = {"noise-free": x, "twice as wide": 2 * x}
    for step in (400, 600):
        for described, points in sets.items():
            data = (points, torch.sin(3 * points[:, :1]) * points[:, 1:])
            name = f"curve-64-seed0:iter-{step}-ckpt"
            evaluate_run(name, data, described=described, device="cpu", loss=nn.functional.mse_loss)
    views = {
        "By width": "by=model.width&spread=ci",
        "Crashed this week": "q=state%3Acrashed+started%3E7d",
        "Small ones, best first": "q=model.width%3C32&sort=best%3Aval_loss.asc",
    }
    for name, address in views.items():
        save_view(home, name, address)
    for name in ("typo", "curve-8-first-try"):
        with darkit.start_run(name) as run:
            run.log({"train_loss": 1.0}, step=1)
        move_to_trash(home / "base", name)


def take_all(browser: Browser, address: str, names: list[str]) -> None:
    """Take a picture of everything that the page of the dashboard describes."""
    chosen = "compare?" + "&".join(f"run={name}" for name in names)
    page = browser.new_page(viewport={"width": 1400, "height": 860}, color_scheme="light", locale="en-US")
    page.set_default_timeout(90_000)  # the machine may be busy

    def show(path: str, charts: int, height: int = 860) -> None:
        page.set_viewport_size({"width": 1400, "height": height})
        page.goto(f"{address}/{path}")
        if charts:
            page.wait_for_function(f"() => document.querySelectorAll('.plot[data-drawn]').length >= {charts}")
        else:
            page.locator(".ag-row, .medium-image").first.wait_for()
        page.mouse.move(700, 20)  # no curve stands out
        page.wait_for_timeout(1000)

    def card(heading: str) -> Locator:
        found = page.locator("section.card", has=page.get_by_role("heading", name=heading, exact=True))
        found.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        return found

    show("?" + "&".join(f"run={name}" for name in names[2:5]), 2)
    save("runs", page.screenshot())
    show("?by=model.width&side=0", 0, 380)
    save("groups", page.screenshot())
    page.keyboard.press("Control+k")
    page.keyboard.type("seed1")
    page.wait_for_timeout(500)
    save("palette", page.screenshot())
    show("?side=0", 0, 380)
    page.locator("#views summary").click()
    page.locator(".view-row").first.wait_for()
    save("views", page.screenshot())
    page.locator("#views summary").click()
    page.locator("#open-trash").click()
    page.locator("#trash-list tbody tr").first.wait_for()
    page.wait_for_timeout(500)
    save("trash", page.screenshot())
    show(f"{chosen}&smooth=0.9&log=1", 3)
    save("compare", page.screenshot())
    show(f"{chosen}&run=curve-64-too-fast&group=model.width", 2)
    save("values", card("Last and best values").screenshot())
    save("scatter", card("A metric against a config key").screenshot())
    save("statistics", card("More than noise?").screenshot())
    save("parallel", card("Config keys and a metric").screenshot())
    show("run/layers", 2, 620)
    save("run", page.screenshot())
    show("run/layers?tab=media", 0)
    save("media", page.locator("[role=tabpanel]:visible").screenshot())
    page.goto(f"{address}/run/curve-64-seed0?tab=overview")
    save("evaluations", card("Evaluations").screenshot())
    page.goto(f"{address}/run/curve-64-seed0?tab=graph")
    page.locator(".module").first.wait_for()
    save("modules", card("Modules").screenshot())
    show("run/curve-64-too-fast", 2, 305)  # without the paths of this machine
    save("crash", page.screenshot())
    phone = browser.new_page(viewport={"width": 390, "height": 700}, color_scheme="dark", locale="en-US")
    phone.goto(address + "/")
    phone.locator(".ag-row").first.wait_for()
    phone.wait_for_timeout(1000)
    save("phone", phone.screenshot())


def train_more() -> None:
    """Fork a run with another learning rate, and train a language model, whose process prints to its console."""
    with contextlib.redirect_stderr(io.StringIO()):
        fit("curve-64-slower", 64, 0, 1e-3, fork="curve-64-seed0:iter-400-ckpt")
    words = [
        "name=talker",
        "trainer.max_step=60",
        "trainer.batch_size=4",
        "trainer.device=cpu",
        "trainer.tensorboard=false",
    ]
    subprocess.run([sys.executable, "-m", "darkit", "train", *words], check=True, capture_output=True)


def take_more(browser: Browser, address: str) -> None:
    """Take pictures of a query with a mistake, the help, a fork's settings, a console and a prompt."""
    page = browser.new_page(viewport={"width": 1400, "height": 380}, color_scheme="light", locale="en-US")
    page.set_default_timeout(90_000)
    page.goto(f"{address}/?side=0")
    page.locator(".ag-row").first.wait_for()
    page.locator("#search").fill("val_los<0.3 state:finished")
    page.locator("#query-problem:not(:empty)").wait_for()
    page.wait_for_timeout(1000)
    save("query", page.screenshot())
    page.locator("#search").fill("")
    page.set_viewport_size({"width": 1400, "height": 860})
    page.locator("#open-help").click()
    page.wait_for_timeout(500)
    save("help", page.locator("dialog[open]").screenshot())

    def tab(run: str, name: str, ready: str) -> Locator:
        page.goto(f"{address}/run/{run}?tab={name}")
        page.locator(ready).first.wait_for()
        page.wait_for_timeout(1000)
        return page.locator("[role=tabpanel]:visible")

    page.set_viewport_size({"width": 1400, "height": 680})
    tab("curve-64-slower", "config", "tr.differs")
    save("config", page.screenshot())
    page.set_viewport_size({"width": 1400, "height": 860})
    tab("curve-64-slower", "overview", ".tree")
    save("lineage", page.locator("section.card", has=page.locator(".tree")).first.screenshot())
    save("console", tab("talker", "console", ".console-text").locator("section.card").first.screenshot())
    panel = tab("talker", "prompt", "#prompt").locator("section.card")
    page.locator("#prompt").fill("The import statement")
    page.locator("#prompt-tokens").fill("40")
    page.get_by_role("button", name="Send").click()
    page.locator("#prompt-answer[data-done=yes]").wait_for()
    save("prompt", panel.screenshot())


def take_beyond(browser: Browser, home: Path, names: list[str]) -> None:
    """Take pictures of what is shown without the page: a run in a notebook, a report, and ``darkit top``."""
    page = browser.new_page(viewport={"width": 700, "height": 400}, locale="en-US")
    page.set_content(f"<div id=cell style='padding:12px;width:600px'>{darkit.load(names[3])._repr_html_()}</div>")
    save("notebook", page.locator("#cell").screenshot(), "beyond")
    page.set_viewport_size({"width": 1100, "height": 900})
    page.set_content(report(names, View(group=("model.width",))).decode())
    page.locator(".js-plotly-plot").first.wait_for()
    page.wait_for_timeout(1000)
    save("report", page.screenshot(), "beyond")

    async def top() -> str:
        async with Top(Library(home / "base", LogCache()), "~/darkit").run_test(size=(110, 34)) as pilot:
            for key in (None, "j", "j", "space", "j", "j", "j", "space", None):  # a chart of two runs
                await pilot.press(*([] if key is None else [key]))
                await pilot.pause(2)
            return pilot.app.export_screenshot()

    page.set_content(f"<div id=top style='width:1000px'>{finish(top())}</div>")
    save("top", page.locator("#top svg").screenshot(), "beyond")


def save(name: str, picture: bytes, where: str = "dashboard") -> None:
    """Write a picture with few colours, which these pages do with, as a third of the bytes."""
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS, kmeans=2, dither=Image.Dither.NONE)
    few.save(PICTURES / f"{where}-{name}.png", optimize=True)


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
            record_layers()
            arrange(home)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with served(home / "base") as dashboard:
            take_all(browser, dashboard.address, names)
            take_beyond(browser, home, names)
            train_more()
            take_more(browser, dashboard.address)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
