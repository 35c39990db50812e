"""A run while it trains: its curve grows on the screen, and the stop button reaches it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.runs import files
from tests.dashboard.conftest import Served
from tests.dashboard.parts import add_columns, make_run, row

Open = Callable[..., Page]
TRAINING = """
import time, torch
from torch import nn
import darkit
x = torch.randn(256, 4)
class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
    def forward(self, x):
        time.sleep(0.01)
        return self.layer(x)
darkit.fit(Slow(), (x, x.sum(1, keepdim=True)), loss=nn.functional.mse_loss, name="live", max_step=100000,
           batch_size=8, device="cpu", tensorboard=False, save_step_interval=0, eval_step_interval=0)
"""


@pytest.fixture
def training(python: str, home: Path) -> Iterator[Path]:
    process = subprocess.Popen(
        [python, "-c", TRAINING], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    folder = home / "base" / "live"
    deadline = time.monotonic() + 60
    while not (folder / files.LOG).exists() or (folder / files.LOG).stat().st_size < 200:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield folder
    with contextlib.suppress(ProcessLookupError):  # it may have been stopped
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert process.stderr is not None
    process.stderr.close()


def append(path: Path, lines: str) -> None:
    with path.open("a") as log:
        log.write(lines)


def points(page: Page) -> int:
    return page.evaluate("document.querySelector('[data-chart=train_loss] .plot').data[0].x.length")


def test_a_curve_grows_while_the_run_trains_and_the_stop_button_ends_it_saved(
    training: Path, dashboard: Served, open_page: Open
) -> None:
    page = open_page(dashboard.address + "/run/live")
    expect(page.locator("[data-chart=train_loss] .plot[data-drawn]")).to_have_count(1)
    expect(page.locator("#run-state")).to_have_text("running")
    before = points(page)
    page.wait_for_function(
        f"() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.length > {before + 100}"
    )
    shown = page.evaluate("Array.from(document.querySelector('[data-chart=train_loss] .plot').data[0].x)")
    assert shown == sorted(set(shown))
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stop requested")).to_be_visible()
    expect(page.locator("#run-state")).to_have_text("stopped")


def test_new_rows_come_as_little_pieces_and_a_rewritten_log_is_drawn_anew(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 5000, state="running", max_step=10_000)
    page = open_page(dashboard.address + "/run/one")
    expect(page.locator("[data-chart=train_loss] .plot[data-drawn]")).to_have_count(1)
    new = "".join(row(step, 0.25) + "\n" for step in range(5001, 5501))
    with page.expect_response(lambda answer: answer.url.endswith("/api/news") and "bdata" in answer.text()) as coming:
        append(folder / files.LOG, new)
    assert len(coming.value.body()) < 9000  # the whole of a curve is ten times as much
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.at(-1) === 5500")
    assert page.evaluate("document.querySelector('[data-chart=train_loss] .plot').data[0].y.at(-1)") == 0.25
    lines = (folder / files.LOG).read_text().splitlines(keepends=True)
    files.write_text(folder / files.LOG, "".join(lines[:3001]))
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.at(-1) === 3000")


def test_a_hidden_tab_asks_for_nothing_and_catches_up_when_it_is_seen(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 100, state="running", max_step=10_000)
    page = open_page(dashboard.address + "/run/one")
    expect(page.locator("[data-chart=train_loss] .plot[data-drawn]")).to_have_count(1)
    asked: list[str] = []
    hide = """(yes) => {
        Object.defineProperty(document, 'hidden', {value: yes, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(1000)
    page.on("request", lambda request: asked.append(request.url))
    with (folder / files.LOG).open("a") as log:
        log.write(row(101, 0.5) + "\n")
    page.wait_for_timeout(2500)
    assert asked == []
    page.evaluate(hide, False)
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.at(-1) === 101")


def test_a_checkpoint_that_is_saved_meanwhile_gets_its_mark(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 100, state="running", max_step=10_000)
    page = open_page(dashboard.address + "/run/one")
    expect(page.locator("[data-chart=train_loss] .plot[data-drawn]")).to_have_count(1)
    for _ in range(2):  # what there was before is known then
        page.wait_for_event("response", lambda answer: answer.url.endswith("/api/news"))
    (folder / "iter-100-ckpt.pth").write_bytes(b"x")
    page.wait_for_function(
        """() => document.querySelector('[data-chart=train_loss] .plot').data
        .some((one) => one.meta.kind === 'checkpoint' && one.x[0] === 100)"""
    )


def test_a_run_that_diverges_while_it_is_looked_at_is_marked_in_the_table(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 100, state="running", max_step=10_000)
    page = open_page(dashboard.address + "/")
    expect(page.locator('.ag-row[row-id="one"] .state-running')).to_be_visible()
    append(folder / files.LOG, "".join(row(step, float("nan")) + "\n" for step in range(101, 106)))
    values = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**values, "step": 105, "heartbeat": values["heartbeat"] + 1})
    expect(page.locator('.ag-row[row-id="one"] .state-diverged')).to_contain_text("diverged")


def test_a_constant_series_is_shown_at_its_value_until_another_comes(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "even", 200, state="running")  # its lr is always 0.001
    page = open_page(dashboard.address + "/run/even")
    lr = "document.querySelector('[data-chart=lr] .plot')"
    page.locator("[data-chart=lr]").scroll_into_view_if_needed()
    page.wait_for_function(f"() => {lr}?._fullLayout?.yaxis.range[0] >= 0 && {lr}._fullLayout.yaxis.range[1] < 0.003")
    append(folder / files.LOG, row(201, 0.4).replace(",0.001,", ",0.5,") + "\n")
    page.wait_for_function(f"() => {lr}._fullLayout.yaxis.range[1] > 0.5")


def test_a_series_that_becomes_one_of_a_family_and_its_sisters_come_to_the_open_page(
    dashboard: Served, open_page: Open
) -> None:
    folder = make_run(dashboard.root, "one", 20, state="running", max_step=10_000)
    add_columns(folder, {"acc_task_0": lambda step: step})
    page = open_page(dashboard.address + "/run/one?show=acc")  # another chart on the screen would be drawn anew
    expect(page.locator("[data-chart=acc_task_0] .plot[data-drawn]")).to_have_count(1)
    add_columns(folder, {"acc_task_1": lambda step: -step})
    expect(page.locator("[data-chart='acc_task_*'] .plot[data-drawn]")).to_have_count(1)
    expect(page.locator("[data-chart=acc_task_0]")).to_have_count(0)
