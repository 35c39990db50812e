"""Notifications of the browser: asked for by a click alone, then shown once for what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.reading.events import Event, Events
from darkit.runs import files
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run

FAKE = """() => {
    window.asked = 0; window.shown = [];
    class Fake {
        static permission = 'default';
        static async requestPermission() { window.asked += 1; Fake.permission = window.answer; return window.answer; }
        constructor(title, options) { this.title = title; Object.assign(this, options); window.shown.push(this); }
        close() {}
    }
    window.answer = 'granted';
    window.Notification = Fake;
}"""


def test_the_browser_notifies_of_a_crash_after_a_click_has_allowed_it(
    dashboard: Served, open_page: Callable[..., Page], home: Path
) -> None:
    folder = make_run(home / "base", "gpt", 30, state="running", max_step=50)
    page = open_page(dashboard.address)
    page.clock.install()
    page.context.add_init_script(f"({FAKE})()")
    page.reload()
    bell = page.locator("#notices")
    expect(bell).to_have_attribute("aria-pressed", "false")
    assert page.evaluate("window.asked") == 0
    page.evaluate("window.answer = 'denied'")
    bell.click()
    expect(page.get_by_text("does not allow notifications")).to_be_visible()
    expect(bell).to_have_attribute("aria-pressed", "false")
    page.evaluate("window.answer = 'granted'")
    with page.expect_response("**/api/events") as asked:
        bell.click()
    assert asked.value.json() == {"last": 0, "events": []}
    expect(bell).to_have_attribute("aria-pressed", "true")
    values = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**values, "state": "crashed", "reason": "ValueError: <b>boom</b>"})
    page.clock.fast_forward(11_000)
    page.wait_for_function("() => window.shown.length === 1")
    shown = page.evaluate("({title: shown[0].title, body: shown[0].body})")
    assert shown["title"] == "gpt crashed at step 30 / 50"
    assert shown["body"].startswith("ValueError: <b>boom</b>\ntrain_loss 0.4")
    page.evaluate("shown[0].onclick()")
    expect(page.get_by_role("heading", level=1)).to_have_text("gpt")
    bell.click()
    expect(bell).to_have_attribute("aria-pressed", "false")


def test_a_long_look_at_the_runs_keeps_no_other_request_waiting(
    dashboard: Served, open_page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, over = threading.Event(), threading.Event()
    since = Events.since

    def slow(self: Events, number: int | None) -> tuple[int, list[Event]]:
        looks.set()
        assert over.wait(60)
        return since(self, number)

    monkeypatch.setattr(Events, "since", slow)
    page = open_page(dashboard.address)
    page.evaluate("() => { window.events = darkit.ask('/api/events', {}).then((answer) => answer.json()); }")
    assert looks.wait(60)
    try:
        assert page.evaluate("async () => (await darkit.ask('/api/homes', {})).status") == 200
    finally:
        over.set()
    assert page.evaluate("() => window.events") == {"last": 0, "events": []}
