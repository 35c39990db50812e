"""A run that was resumed: the pauses between its sessions are no training. A stop leaves only the last checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.runs import files
from tests.dashboard.conftest import Served
from tests.dashboard.parts import STARTED, make_run
from tests.dashboard.screen import drawn, trace

Open = Callable[..., Page]
PAUSE = 1500.0  # seconds


def update(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def make_resumed(root: Path) -> Path:
    """A hundred steps a second from step 1 to 200, and again from 201 to 400 after a pause."""
    folder = make_run(root, "resumed", 400)
    head, *lines = (folder / files.LOG).read_text().splitlines()
    rows = [line.split(",") for line in lines]
    for row in rows[200:]:
        row[2] = repr(float(row[2]) + PAUSE)
    (folder / files.LOG).write_text("\n".join([head, *map(",".join, rows)]) + "\n")
    update(folder / files.RUN, continued=[{"after_step": 200, "time": STARTED + 2 + PAUSE}])
    update(folder / files.STATUS, started=STARTED + 2 + PAUSE, heartbeat=STARTED + 4 + PAUSE)
    return folder


def test_a_resumed_run_shows_its_active_time_its_start_and_its_sessions(dashboard: Served, open_page: Open) -> None:
    make_resumed(dashboard.root)
    page = open_page(dashboard.address + "/?col=name&col=rate&col=duration&col=started", timezone_id="UTC")
    row = page.locator('.ag-row[row-id="resumed"]')
    expect(row.locator('[col-id="rate"]')).to_have_text("100")
    expect(row.locator('[col-id="duration"]')).to_have_text("4.0 s")
    expect(row.locator('[col-id="started"]')).to_have_text("2025-10-09 08:53")
    page.goto(dashboard.address + "/run/resumed?axis=relative")
    drawn(page, 2)
    seconds = trace(page, "train_loss", "resumed")["x"]
    assert seconds[-1] == pytest.approx(3.99, abs=0.02)
    assert max(after - before for before, after in pairwise(seconds)) < 0.1
    assert trace(page, "train_loss", "resumed", "resumed")["x"] == [pytest.approx(1.99, abs=0.02)]
    page.get_by_role("tab", name="Overview").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("resumed after step 200")
    expect(page.get_by_role("tabpanel")).to_contain_text("4.0 s")


def test_marks_of_checkpoints_that_a_stop_removes_go(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 100, state="running", max_step=10_000)
    (folder / "iter-50-ckpt.pth").write_bytes(b"x")
    page = open_page(dashboard.address + "/run/one")
    drawn(page, 1)
    assert trace(page, "train_loss", "one", "checkpoint")["x"] == [50]
    (folder / "iter-100-ckpt.pth").write_bytes(b"x")
    (folder / "iter-50-ckpt.pth").unlink()  # as many as before
    update(folder / files.STATUS, state="stopped")
    page.wait_for_function(
        """() => document.querySelector('[data-chart=train_loss] .plot').data
        .some((one) => one.meta.kind === 'checkpoint' && one.x[0] === 100)"""
    )
