"""Many runs: what is selected is what matches, an action can be undone, and the table is found again as it was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import Page, expect

from darkit.runs.notes import read_notes
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import drawn
from tests.faults.parts import wait_until

Open = Callable[..., Page]
MANY = 205  # more than can be compared


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    for seed in range(MANY):
        make_run(root, f"{'some' if seed < 12 else 'other'}-{seed:03}", 2, seed=seed)
    with served(root) as one:
        yield one


def test_select_all_takes_what_matches_and_what_is_done_to_it_can_be_undone(crowd: Served, open_page: Open) -> None:
    page = open_page(crowd.address + "/?side=0")
    page.locator("#search").fill("some")
    expect(page.locator("#run-count")).to_have_text("12 of 205")
    page.locator(".ag-header-select-all input").first.click()
    expect(page.locator("#selected-count")).to_have_text("12 selected (all matching)")
    page.locator("#archive").click()
    expect(page.get_by_text("Archived: 12")).to_be_visible()
    archived = {folder.name for folder in crowd.root.iterdir() if read_notes(folder).archived}
    assert archived == {f"some-{seed:03}" for seed in range(12)}
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone for 12 runs")).to_be_visible()
    assert not any(read_notes(folder).archived for folder in crowd.root.iterdir())
    page.locator("#search").fill("some-00")
    expect(page.locator("#selected-count")).to_have_text("12 selected, 2 of them hidden by the filter")
    page.locator("#search").fill("some")
    page.get_by_role("button", name="Tags and note").click()
    page.locator("#notes-tags").fill("paper")
    page.locator("#notes-tags").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert read_notes(crowd.root / "some-003").tags == ("paper",)
    page.locator(".undo:not(:disabled)").last.click()
    wait_until(lambda: not any(read_notes(folder).tags for folder in crowd.root.iterdir()), "the undo")
    expect(page.locator(".tag", has_text="paper")).to_have_count(0)


def test_of_too_many_runs_the_first_are_compared_and_the_address_stays_short(crowd: Served, open_page: Open) -> None:
    page = open_page(crowd.address + "/?sort=name.asc")
    expect(page.locator("#run-count")).to_have_text("205")
    page.locator(".ag-header-select-all input").first.click()
    expect(page.locator("#selected-count")).to_have_text("205 selected (all matching)")
    page.get_by_role("button", name="Compare the first 200").click()
    expect(page.get_by_role("heading", name="Comparison of 200 runs")).to_be_visible()
    expect(page.get_by_text("5 more are not shown")).to_be_visible()
    chosen = parse_qs(urlsplit(page.url).query)["run"]
    assert (len(chosen), chosen[0], chosen[-1]) == (200, "other-012", "some-006")
    assert len(page.url) < 8_000


def test_the_table_is_found_again_as_it_was_left(crowd: Served, open_page: Open) -> None:
    page = open_page(crowd.address + "/?q=other")
    expect(page.locator("#run-count")).to_have_text("193 of 205")
    rows = "document.querySelector('#grid-box .ag-body-viewport')"
    page.evaluate(f"() => {{ {rows}.scrollTop = 3000; }}")
    page.wait_for_function("() => history.state?.rows === 3000")
    page.locator("a.run-link:visible").nth(10).click()
    expect(page.locator("#run-state")).to_be_visible()
    page.go_back()
    page.wait_for_function(f"() => {rows}?.scrollTop === 3000")
    page.locator("a.run-link:visible").nth(10).click()
    expect(page.locator("#run-state")).to_be_visible()
    page.get_by_role("link", name="Runs").click()
    expect(page.locator("#search")).to_have_value("other")
    expect(page.locator("#run-count")).to_have_text("193 of 205")


def test_a_page_is_found_again_where_it_was_scrolled_to(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1&run=mlp-3")
    page.set_viewport_size({"width": 1400, "height": 400})
    drawn(page, 2)
    expect(page.locator("#config-grid .ag-row").first).to_be_attached()
    page.evaluate("() => window.scrollTo(0, 500)")
    page.wait_for_function("() => history.state?.y === 500")
    page.locator("a.chip-link").first.dispatch_event("click")
    expect(page.locator("#run-state")).to_be_visible()
    page.wait_for_function("() => window.scrollY === 0")
    drawn(page, 2)
    page.wait_for_function(
        "() => document.documentElement.scrollHeight > 900"
    )  # as long as the one that is gone back to
    for back, heading, place in ((True, "Comparison of 3 runs", 500), (False, "mlp-", 0)):
        page.go_back() if back else page.go_forward()
        expect(page.get_by_role("heading", name=heading).first).to_be_visible()
        page.wait_for_function(f"() => window.scrollY === {place}")


def test_the_start_is_filtered_by_a_day_that_is_chosen_from_a_calendar(crowd: Served, open_page: Open) -> None:
    model = quote(
        '{"started":{"filterType":"date","type":"greaterThan","dateFrom":"2025-10-08 00:00:00","dateTo":null}}'
    )
    page = open_page(f"{crowd.address}/?side=0&filter={model}", timezone_id="UTC")
    expect(page.locator("#run-count")).to_have_text("205")
    page.goto(f"{crowd.address}/?side=0&filter={model.replace('10-08', '10-09')}")  # the day on which all were started
    expect(page.locator("#run-count")).to_have_text("0 of 205")
    head = page.locator('.ag-header-cell[col-id="started"]')
    head.scroll_into_view_if_needed()
    head.hover()
    head.locator(".ag-header-cell-filter-button").click()
    expect(page.locator(".ag-filter input[type=date]:visible").first).to_have_value("2025-10-09")
