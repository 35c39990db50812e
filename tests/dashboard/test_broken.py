"""Whatever lies in a run directory: a marked row with a reason, and pages that do not fail for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.pages.run import run_page
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.view import read_address
from darkit.runs import files
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run

Open = Callable[..., Page]
BROKEN: dict[str, Callable[[Path], object]] = {
    "torn-log": lambda run: (run / files.LOG).write_text("step,train_loss\n1,0.5\n2,0."),
    "binary-log": lambda run: (run / files.LOG).write_bytes(os.urandom(5000)),
    "empty-log": lambda run: (run / files.LOG).write_bytes(b""),
    "log-is-a-folder": lambda run: ((run / files.LOG).unlink(), (run / files.LOG).mkdir()),
    "log-is-a-pipe": lambda run: ((run / files.LOG).unlink(), os.mkfifo(run / files.LOG)),
    "no-log": lambda run: (run / files.LOG).unlink(),
    "half-status": lambda run: (run / files.STATUS).write_text('{"state": "run'),
    "no-status": lambda run: (run / files.STATUS).unlink(),
    "status-is-a-pipe": lambda run: ((run / files.STATUS).unlink(), os.mkfifo(run / files.STATUS)),
    "status-of-other-types": lambda run: (run / files.STATUS).write_text(
        '{"state": 5, "step": "many", "max_step": [1], "started": {}, "heartbeat": 1e400, "host": null, "reason": 7}'
    ),
    "status-list": lambda run: (run / files.STATUS).write_text("[1, 2]"),
    "deep-json": lambda run: (run / files.MODEL_CONFIG).write_text('{"a":' * 50_000),
    "half-info": lambda run: (run / files.RUN).write_text('{"id": "'),
    "no-info": lambda run: (run / files.RUN).unlink(),
    "info-of-other-types": lambda run: (run / files.RUN).write_text(
        '{"series": [1], "model": 5, "git": "x", "host": [], "versions": 3, '
        '"data": [], "command": {"a": 1}, "created": "x"}'
    ),
    "strange-series": lambda run: (run / files.RUN).write_text(
        '{"series": {"a": ["step"], "b": 5, "c": ["x", "y"], "d": [1, 2]}}'
    ),
    "strange-notes": lambda run: (run / "notes.json").write_text('{"tags": [1, null], "note": 5, "archived": "yes"}'),
    "strange-manifest": lambda run: (
        (run / "iter-5-ckpt.pth").write_bytes(b"1"),
        (run / "iter-5-ckpt.json").write_text('{"size": "x", "metrics": [1], "sha256": 5}'),
    ),
    "clock-back": lambda run: (run / files.LOG).write_text(
        "step,time,train_loss\n" + "".join(f"{step},{2e9 - step * 50},{1 / step}\n" for step in range(1, 3000))
    ),
    "steps-back": lambda run: (run / files.LOG).write_text(
        "step,time,train_loss\n" + "".join(f"{3000 - step},{step},{1 / step}\n" for step in range(1, 3000))
    ),
    "future-start": lambda run: (run / files.STATUS).write_text(
        '{"state": "finished", "step": -5, "max_step": 0, "started": 9e15, "heartbeat": 1}'
    ),
    "surrogates": lambda run: (run / files.MODEL_CONFIG).write_text('{"a": "\\ud800", "\\udfff": 1}'),
}
MARKED = {
    "log-is-a-folder",
    "log-is-a-pipe",
    "half-status",
    "no-status",
    "status-is-a-pipe",
    "status-list",
    "deep-json",
    "half-info",
    "no-info",
}


@pytest.fixture
def library(home: Path) -> Library:
    root = home / "base"
    for name, spoil in BROKEN.items():
        spoil(make_run(root, name, 30))
    (root / "no-run-at-all").mkdir()
    (root / "a file").write_text("x")
    (root / "link").symlink_to("/etc")
    (root / "bad:name").mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/latin-\xff")).mkdir()
    return Library(root, LogCache())


def test_every_broken_folder_is_a_row_and_says_why(library: Library) -> None:
    _, entries = library.entries()
    rows = {entry.name: entry.row for entry in entries}
    assert rows.keys() == {*BROKEN, "no-run-at-all", "link", "bad:name", "latin-?"}
    for name in (*MARKED, "no-run-at-all", "link", "bad:name", "latin-?"):
        assert rows[name]["problem"], name
    assert rows["no-run-at-all"]["state"] == "broken"
    assert not rows["link"]["opens"]
    assert not rows["bad:name"]["opens"]
    assert rows["clock-back"]["rate"] is None
    assert rows["future-start"]["duration"] is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_of_every_broken_run_can_be_made(library: Library, language: str) -> None:
    charts = Charts(library)
    for name in BROKEN:
        _, state = read_address(f"/run/{name}")
        assert run_page(language, charts.chosen([name], "log")[0], state)


def test_the_pages_show_broken_runs_beside_whole_ones(dashboard: Served, library: Library, open_page: Open) -> None:
    page = open_page(dashboard.address + "/")
    expect(page.locator(f"#grid-box[data-filled='{len(BROKEN) + 4}']")).to_have_count(1)
    page.goto(
        dashboard.address
        + "/compare?"
        + "&".join(f"run={name}" for name in BROKEN)
        + "&axis=relative&smooth=0.5&robust=1"
    )
    expect(page.locator("[data-chart=train_loss] .plot[data-drawn]")).to_have_count(1)
    page.goto(dashboard.address + "/run/no-info")
    expect(page.locator("#run-ending")).to_contain_text("run.json")
