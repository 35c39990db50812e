"""The page of one run: everything that is known of it."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Served

Open = Callable[..., Page]


def test_the_run_page_tells_reason_traceback_commands_checkpoints_and_source(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/broken-off")
    expect(page.locator("#run-ending")).to_contain_text("ValueError: boom")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator("#run-ending pre")).to_be_visible()
    page.get_by_role("tab", name="Overview").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("python train.py 'a b'")
    expect(page.get_by_role("tabpanel")).to_contain_text("darkit train resume=broken-off")
    page.get_by_role("tab", name="Checkpoints").click()
    rows = page.locator("table.values tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("no manifest")
    expect(rows.nth(1)).to_contain_text("complete")
    expect(rows.nth(1)).to_contain_text("val_loss 0.5")
    page.get_by_role("tab", name="Source").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("class MLP")
    page.get_by_role("tab", name="Machine").click()
    expect(page.locator("#system-charts .plot[data-drawn]")).to_have_count(3)
    assert "tab=machine" in page.url
