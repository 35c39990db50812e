"""Notes are saved while they are written, and nothing is lost when the page is left or the server does not respond."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from darkit.runs.notes import Notes, read_notes, write_notes
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run
from tests.runs.parts import wait_until

Open = Callable[..., Page]


def refuse(route: Route) -> None:
    route.abort("connectionrefused")


def test_notes_survive_whichever_way_the_page_is_left_and_keep_what_others_wrote(
    dashboard: Served, open_page: Open
) -> None:
    folder = make_run(dashboard.root, "one", 20)
    page = open_page(dashboard.address + "/run/one?tab=notes")
    page.locator("#own-note").fill("written")
    expect(page.locator("#own-status")).to_have_text("Saved.")
    assert read_notes(folder).note == "written"
    page.locator("#own-note").fill("before another tab")
    page.get_by_role("tab", name="Overview").click()
    wait_until(lambda: read_notes(folder).note == "before another tab")
    page.get_by_role("tab", name="Notes").click()
    expect(page.locator("#own-note")).to_have_value("before another tab")
    page.locator("#own-note").fill("before the link")
    page.locator("a.brand").click()
    expect(page.locator('.ag-row[row-id="one"]').first).to_be_visible()
    assert read_notes(folder).note == "before the link"
    stale = open_page(dashboard.address + "/run/one?tab=notes")
    expect(stale.locator("#own-note")).to_have_value("before the link")
    write_notes(folder, Notes(("theirs",), "their words"))
    stale.locator("#own-tags").fill("mine")
    stale.locator("#own-tags").press("Enter")
    expect(stale.locator("#own-status")).to_have_text("Saved.")
    assert read_notes(folder) == Notes(("mine", "theirs"), "their words")
    expect(stale.locator("#own-note")).to_have_value("their words")


def test_without_a_server_the_page_stays_whole_and_says_what_was_not_done(
    dashboard: Served, browser_page: Page
) -> None:
    page = browser_page
    folder = make_run(dashboard.root, "one", 20)
    make_run(dashboard.root, "two", 20)
    page.goto(dashboard.address + "/run/one?tab=notes")
    expect(page.locator("#own-note")).to_be_visible()
    page.route("**/*", refuse)
    page.locator("#own-note").fill("written meanwhile")
    expect(page.locator("#own-status")).to_contain_text("Not saved")
    page.locator("a.brand").click()
    expect(page.get_by_text("so this page stays open")).to_be_visible()
    assert page.url.endswith("/run/one?tab=notes")
    expect(page.locator("#own-note")).to_have_value("written meanwhile")
    page.unroute("**/*", refuse)
    wait_until(lambda: read_notes(folder).note == "written meanwhile")
    expect(page.locator("#own-status")).to_have_text("Saved.")
    page.locator("a.brand").click()
    row = page.locator('.ag-row[row-id="two"]').first
    expect(row).to_be_visible()
    page.locator('.ag-row[row-id="two"] input[type=checkbox]').check()
    page.route("**/*", refuse)
    page.locator("#archive").click()
    expect(page.get_by_text("nothing was changed")).to_be_visible()
    page.go_back()  # to the page of a run, which cannot be loaded now
    expect(page.locator("#offline")).to_be_visible()
    page.unroute("**/*", refuse)
    expect(page.get_by_role("heading", name="one")).to_be_visible()
    expect(page.locator("#offline")).to_be_hidden()


def test_a_note_that_is_refused_waits_for_its_run_and_keeps_no_other_page_closed(
    dashboard: Served, browser_page: Page
) -> None:
    folder = make_run(dashboard.root, "one", 20)
    make_run(dashboard.root, "two", 20)
    page = browser_page
    page.goto(dashboard.address + "/")
    page.locator('.ag-row[row-id="one"] a').click()
    page.get_by_role("tab", name="Notes").click()
    page.locator("#own-note").fill("first")
    expect(page.locator("#own-status")).to_have_text("Saved.")
    page.locator("#own-note").fill("x" * 20_001)
    expect(page.locator("#own-status")).to_have_class(re.compile(r"\bbad\b"))
    page.go_back()
    page.locator('.ag-row[row-id="two"] a').click()
    expect(page.get_by_role("heading", name="two", exact=True)).to_be_visible()
    assert read_notes(folder).note == "first"
    page.go_back()
    page.locator('.ag-row[row-id="one"] a').click()
    page.get_by_role("tab", name="Notes").click()
    expect(page.locator("#own-note")).to_have_value("x" * 20_001)  # it has waited
    page.locator("#own-note").fill("shorter")
    wait_until(lambda: read_notes(folder).note == "shorter")


def test_a_letter_that_is_deleted_again_leaves_no_draft(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    page = open_page(dashboard.address + "/run/one?tab=notes")
    field, status = page.locator("#own-note"), page.locator("#own-status")
    field.press_sequentially("x")
    field.press("Backspace")
    expect(status).to_have_text(re.compile(r"^(Saved\.)?$"))
    page.wait_for_function("() => !Object.keys(sessionStorage).some((key) => key.startsWith('darkit-draft'))")
    page.reload()
    field.fill("another")
    expect(status).to_have_text("Saved.")
    assert read_notes(folder).note == "another"


def test_a_note_that_was_changed_elsewhere_is_shown_above_ones_own_and_can_be_saved_then(
    dashboard: Served, open_page: Open
) -> None:
    folder = make_run(dashboard.root, "one", 20)
    write_notes(folder, Notes(("tag",), "first"))
    page = open_page(dashboard.address + "/run/one?tab=notes")
    field, status = page.locator("#own-note"), page.locator("#own-status")
    expect(field).to_have_value("first")
    write_notes(folder, Notes(("tag", "theirs"), "their words"))
    field.fill("my words")
    expect(status).to_contain_text("was changed elsewhere")
    page.reload()
    expect(field).to_have_value("their words\n\nmy words")
    expect(page.get_by_text("Your text is below that one.")).to_be_visible()
    wait_until(lambda: read_notes(folder) == Notes(("tag", "theirs"), "their words\n\nmy words"))
    field.fill("the words of both")
    wait_until(lambda: read_notes(folder).note == "the words of both")
    expect(status).to_have_text("Saved.")


def test_a_note_that_was_emptied_while_the_server_was_away_stays_empty(dashboard: Served, browser_page: Page) -> None:
    folder = make_run(dashboard.root, "one", 20)
    write_notes(folder, Notes((), "first"))
    browser_page.goto(dashboard.address + "/run/one?tab=notes")
    field, status = browser_page.locator("#own-note"), browser_page.locator("#own-status")
    expect(field).to_have_value("first")
    browser_page.route("**/api/notes", lambda route: route.abort())
    field.fill("")
    expect(status).to_contain_text("Not saved")
    browser_page.unroute("**/api/notes")
    browser_page.reload()
    wait_until(lambda: read_notes(folder).note == "")
    expect(field).to_have_value("")
