"""axe-core finds nothing to mend on any page, in light and dark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Served
from tests.dashboard.screen import drawn

Open = Callable[..., Page]
TABS = ("overview", "config", "graph", "checkpoints", "machine", "media", "console", "source", "prompt", "notes")

# What fades in has less contrast until it has; a dialog's fade begins a frame after it is there, at an opacity below 1.
SETTLED = """() => !document.getAnimations().some((one) => one instanceof CSSTransition)
  && [...document.querySelectorAll("[role=dialog]")].every((one) => getComputedStyle(one).opacity === "1")"""


def check(page: Page, where: str, wrong: list[str]) -> None:
    page.wait_for_function(SETTLED)
    for violation in Axe().run(page).response["violations"]:
        places = [f"{node['html'][:160]} {node.get('failureSummary', '')[-160:]}" for node in violation["nodes"][:3]]
        wrong.append(f"{where}: {violation['id']}: {violation['help']}\n  " + "\n  ".join(places))


@pytest.mark.few(1)
@pytest.mark.parametrize("dark", [False, True])
def test_no_page_has_a_violation(runs: Served, open_page: Open, dark: bool) -> None:
    wrong: list[str] = []
    page = open_page(runs.address + "/", dark=dark)
    expect(page.locator('.ag-row[row-id="mlp-3"]').first).to_be_visible()
    check(page, "runs", wrong)
    page.locator('.ag-row[row-id="mlp-3"] input[type=checkbox]').check()
    page.locator("#edit-notes").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page, "dialog", wrong)
    page.goto(runs.address + "/compare?" + "&".join(f"run=mlp-{seed}" for seed in range(5)))
    drawn(page, 2)
    page.locator("#parallel").scroll_into_view_if_needed()  # it is drawn near the screen
    expect(page.locator("#parallel[data-drawn]")).to_be_attached()
    expect(page.locator("#config-grid .ag-row").first).to_be_attached()
    expect(page.locator(".ag-header-row:empty")).to_have_count(0)
    check(page, "compare", wrong)
    page.goto(runs.address + "/run/broken-off")
    drawn(page, 2)
    check(page, "run", wrong)
    for tab in TABS:
        page.locator(f'[role=tab][id$="-{tab}"]').click()
        expect(page.get_by_role("tabpanel")).to_be_visible()
        check(page, tab, wrong)
    page.goto(runs.address + "/compare")
    expect(page.locator(".card.empty")).to_be_visible()
    check(page, "lost", wrong)
    assert not wrong, "\n".join(wrong)


@pytest.mark.few(1)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_that_opens_above_the_table_has_a_violation(runs: Served, open_page: Open, dark: bool) -> None:
    wrong: list[str] = []
    page = open_page(runs.address + "/?col=name&col=last:train_loss&run=mlp-0", dark=dark, locale="zh-CN")
    for button in ("delete", "rename", "move", "open-trash"):
        if button in ("rename", "move"):
            page.locator("#more summary").click()
            check(page, "menu", wrong)
        page.locator(f"#{button}").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        check(page, button, wrong)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    for key in ("Control+k", "?"):
        page.keyboard.press(key)
        expect(page.get_by_role("dialog")).to_be_visible()
        check(page, key, wrong)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto(runs.address + "/?col=name&col=last:train_loss&by=trainer.lr&run=mlp-0")
    expect(page.locator('.ag-row[row-id="mlp-4"]').first).to_be_visible()  # in a group that is open
    drawn(page, 1)
    check(page, "groups", wrong)
    page.locator("#search").fill("val_loss<")
    expect(page.locator("#query-problem")).to_be_visible()
    check(page, "query", wrong)
    phone = open_page(runs.address + "/?run=mlp-0", dark=dark, wide=False)
    expect(phone.locator("#selection-bar")).to_be_visible()
    check(phone, "phone", wrong)
    phone.goto(runs.address + "/run/mlp-0")
    drawn(phone, 2)
    check(phone, "run on a phone", wrong)
    assert not wrong, "\n".join(wrong)
