"""The table of all runs: what it shows, what it remembers, and what people do to runs in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from darkit.runs import files
from darkit.runs.notes import Notes, read_notes, set_project, write_notes
from darkit.runs.trash import list_trash
from tests.dashboard.conftest import Served
from tests.dashboard.parts import loss_at, make_run
from tests.dashboard.screen import drawn

Open = Callable[..., Page]


def test_the_table_shows_state_step_and_the_last_and_best_of_each_series(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?col=state&col=name&col=best:train_loss&col=last:train_loss&col=progress")
    row = page.locator('.ag-row[row-id="mlp-0"]')
    expect(row.first).to_contain_text("finished")
    text = " ".join(page.locator('.ag-row[row-id="mlp-0"]').all_inner_texts())
    assert "6,000" in text
    best = min(loss_at(step, 6000, 0) for step in range(1, 6001))
    assert f"{best:.5g}" in text
    assert f"{loss_at(6000, 6000, 0):.5g}" in text


def test_sorting_searching_and_columns_are_in_the_address_and_come_back_with_it(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    expect(page.locator('.ag-row[row-id="mlp-5"]')).not_to_have_count(0)
    page.locator("#search").fill("mlp-")
    expect(page.locator("#run-count")).to_have_text("6 of 7")
    page.locator('.ag-header-cell[col-id="name"]').click()
    page.locator("#columns").click()
    page.locator("#columns").fill("model.act")
    page.get_by_role("option", name="model.act").click()
    page.wait_for_function("() => darkit.table?.grid?.getColumn('config:model.act') !== null")
    query = parse_qs(urlsplit(page.url).query)
    assert query["q"] == ["mlp-"]
    assert query["sort"] == ["name.asc"]
    assert "config:model.act" in query["col"]
    page.reload()
    expect(page.locator("#search")).to_have_value("mlp-")
    expect(page.locator("#run-count")).to_have_text("6 of 7")
    expect(page.locator('.ag-header-cell[col-id="name"]')).to_have_attribute("aria-sort", "ascending")
    page.wait_for_function("() => darkit.table?.grid?.getColumn('config:model.act') !== null")


def test_runs_without_a_value_come_last_whichever_way_is_sorted_and_numbers_in_names_count(
    dashboard: Served, open_page: Open
) -> None:
    for name, rows in {"r-9": 100, "r-10": 150, "r-11": 20}.items():  # a loss on other data comes every 50 steps
        make_run(dashboard.root, name, rows)

    def shown(sort: str) -> list[str]:
        page = open_page(f"{dashboard.address}/?col=name&col=best:val_loss&sort={sort}")
        expect(page.locator("#grid-box[data-filled='3']")).to_have_count(1)
        return page.evaluate(
            """() => { const grid = darkit.table.grid;
            return [0, 1, 2].map((place) => grid.getDisplayedRowAtIndex(place).data.name); }"""
        )

    assert shown("best:val_loss.asc")[-1] == shown("best:val_loss.desc")[-1] == "r-11"
    assert shown("name.asc") == ["r-9", "r-10", "r-11"]


def test_columns_that_were_moved_stay_where_they_are_when_more_are_chosen_and_after_a_reload(
    runs: Served, open_page: Open
) -> None:
    page = open_page(runs.address + "/?col=name&col=progress&col=model")
    expect(page.locator("#grid-box[data-filled='7']")).to_have_count(1)
    order = """() => darkit.table?.grid?.getAllDisplayedColumns().map((one) => one.getColId())
        .filter((id) => !id.startsWith('ag-Grid') && id !== 'eye')"""
    page.evaluate("() => darkit.table?.grid?.moveColumns(['model'], 2)")
    page.wait_for_url("**col=name&col=model&col=progress**")
    page.locator("#columns").click()
    page.locator("#columns").fill("Device")
    page.get_by_role("option", name="Device", exact=True).click()
    page.wait_for_function("() => darkit.table?.grid?.getColumn('device') !== null")
    assert page.evaluate(order) == ["name", "model", "progress", "device"]
    page.reload()
    expect(page.locator("#grid-box[data-filled='7']")).to_have_count(1)
    assert page.evaluate(order) == ["name", "model", "progress", "device"]


def test_runs_are_filtered_by_project_and_the_column_is_there_only_if_a_run_has_one(
    dashboard: Served, open_page: Open
) -> None:
    for name in "abc":
        make_run(dashboard.root, name, 20)
    page = open_page(dashboard.address + "/?side=0")
    expect(page.locator("#run-count")).to_have_text("3")
    expect(page.locator("#project")).to_be_hidden()
    assert page.locator('.ag-header-cell[col-id="project"]').count() == 0
    for name, project in {"a": "language", "b": "vision"}.items():
        set_project(dashboard.root / name, project)
    expect(page.locator('.ag-header-cell[col-id="project"]')).to_have_count(1)
    page.locator("#project").click()
    page.get_by_role("option", name="vision").click()
    expect(page.locator("#run-count")).to_have_text("1 of 3")
    assert parse_qs(urlsplit(page.url).query)["project"] == ["vision"]
    page.reload()
    expect(page.locator("#run-count")).to_have_text("1 of 3")
    expect(page.locator("#project")).to_have_value("vision")
    page.goto(dashboard.address + "/?project=unknown")
    expect(page.locator("#run-count")).to_have_text("0 of 3")
    expect(page.locator("#project")).to_have_value("unknown")


def test_the_selection_is_restored_from_the_address(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?archived=1")
    for name in ("mlp-1", "mlp-4"):
        page.locator(f'.ag-row[row-id="{name}"] input[type=checkbox]').click()
    expect(page.get_by_role("button", name="Compare 2")).to_be_enabled()
    page.reload()
    expect(page.get_by_role("button", name="Compare 2")).to_be_enabled()
    page.get_by_role("button", name="Compare 2").click()
    drawn(page, 2)
    assert set(parse_qs(urlsplit(page.url).query)["run"]) == {"mlp-1", "mlp-4"}


def test_config_keys_whose_values_are_numbers_are_filtered_as_numbers(dashboard: Served, open_page: Open) -> None:
    for name, rate in {"a": 1e-4, "b": 1e-2, "c": 1.0}.items():
        make_run(dashboard.root, name, 20, lr=rate)
    model = {"filterType": "number", "type": "greaterThan", "filter": 0.001}
    chosen = quote(json.dumps({"config:trainer.lr": model}))
    page = open_page(f"{dashboard.address}/?col=name&col=config:trainer.lr&col=config:model.act&filter={chosen}")
    expect(page.locator("#run-count")).to_have_text("2 of 3")
    kind = "(key) => darkit.table.grid.getColumn(key).getColDef().filter"
    assert page.evaluate(kind, "config:trainer.lr") == "agNumberColumnFilter"
    assert page.evaluate(kind, "config:model.act") is True


def test_chosen_runs_are_compared_and_a_click_on_a_name_opens_its_page(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    for name in ("mlp-0", "mlp-3"):
        page.locator(f'.ag-row[row-id="{name}"] input[type=checkbox]').click()
    page.get_by_role("button", name="Compare 2").click()
    page.wait_for_url("**/compare?**")  # charts are beside the table too
    drawn(page, 2)
    assert parse_qs(urlsplit(page.url).query).get("run") == ["mlp-0", "mlp-3"], page.url
    page.go_back()
    page.locator('.ag-row[row-id="mlp-3"] a').click()
    expect(page.get_by_role("heading", name="mlp-3")).to_be_visible()


def test_a_comparison_is_grouped_as_the_table_is(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?by=trainer.lr&by=*&spread=ci&run=mlp-0&run=mlp-1&run=mlp-3")
    page.get_by_role("button", name="Compare 3").click()
    page.wait_for_url("**/compare?**")
    expect(page.locator(".chip[data-name]")).to_have_count(3)  # all differ in their width
    query = parse_qs(urlsplit(page.url).query)
    assert (query["group"], query["spread"]) == (["trainer.lr", "*"], ["ci"])
    chosen = "".join(f"&run=mlp-{seed}" for seed in range(6))
    page = open_page(f"{runs.address}/?by=trainer.lr{chosen}")
    page.get_by_role("button", name="Compare 6").click()
    page.wait_for_url("**/compare?**")
    expect(page.get_by_role("heading", name="Comparison of 6 runs")).to_be_visible()
    expect(page.locator(".chip[data-name]")).to_have_count(2)
    expect(page.locator(".by-choice")).to_contain_text("trainer.lr")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_badge_of_a_run_that_diverged_is_not_cut_off(dashboard: Served, open_page: Open, language: str) -> None:
    for number, state in enumerate(("finished", "stopped", "running")):
        make_run(dashboard.root, f"run-{state}", 60, seed=number, state=state, losses={60: float("nan")})
    for wide in (True, False):
        page = open_page(f"{dashboard.address}/?lang={language}", wide=wide)
        expect(page.locator('.ag-cell[col-id="state"] .lost')).to_have_count(3)
        cut = """[...document.querySelectorAll('.ag-cell[col-id="state"] .lost')].map((badge) => {
            const cell = badge.closest('.ag-cell').getBoundingClientRect();
            return cell.right - badge.getBoundingClientRect().right; })"""
        assert all(room > 0 for room in page.evaluate(cut))


def test_tags_and_notes_are_written_and_shown(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    page = open_page(dashboard.address + "/?side=0")
    page.locator('.ag-row[row-id="one"] input[type=checkbox]').click()
    page.get_by_role("button", name="Tags and note").click()
    page.locator("#notes-tags").fill("good")
    page.locator("#notes-tags").press("Enter")
    page.locator("#notes-text").fill("keep this\none")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".tag", has_text="good")).to_be_visible()
    assert read_notes(folder).tags == ("good",)
    assert read_notes(folder).note == "keep this\none"


def test_a_stale_page_does_not_overwrite_the_notes_of_others(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    write_notes(folder, Notes(("shown",), "first"))
    page = open_page(dashboard.address + "/")
    page.locator('.ag-row[row-id="one"] input[type=checkbox]').click()
    page.get_by_role("button", name="Tags and note").click()
    expect(page.locator("#notes-text")).to_have_value("first")
    write_notes(folder, Notes(("shown", "theirs"), "their words"))
    page.locator("#notes-text").fill("my words")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("was changed elsewhere")).to_be_visible()
    expect(page.locator("#notes-text")).to_have_value("my words")
    page.locator("#notes-text").fill("first")
    page.locator("#notes-tags").fill("mine")
    page.locator("#notes-tags").press("Enter")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert read_notes(folder).note == "their words"
    assert set(read_notes(folder).tags) == {"shown", "theirs", "mine"}


def test_saving_the_notes_of_a_run_that_disappeared_is_an_error(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    page = open_page(dashboard.address + "/")
    page.locator('.ag-row[row-id="one"] input[type=checkbox]').click()
    page.get_by_role("button", name="Tags and note").click()
    page.locator("#notes-text").fill("too late")
    folder.rename(dashboard.root.parent / "elsewhere")
    expect(page.locator('.ag-row[row-id="one"]')).to_have_count(0)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("No run is named 'one'")).to_be_visible()


def test_archived_runs_are_hidden_until_they_are_requested(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "old", 20)
    make_run(dashboard.root, "new", 20)
    page = open_page(dashboard.address + "/")
    page.locator('.ag-row[row-id="old"] input[type=checkbox]').click()
    page.locator("#archive").click()
    expect(page.locator('.ag-row[row-id="old"]')).to_have_count(0)
    assert read_notes(folder).archived
    page.get_by_label("Archived").click(force=True)
    expect(page.locator('.ag-row[row-id="old"]')).not_to_have_count(0)


def test_a_run_is_deleted_only_when_its_name_is_typed_and_lies_in_the_trash_then(
    dashboard: Served, open_page: Open
) -> None:
    folder = make_run(dashboard.root, "gone", 20)
    write_notes(make_run(dashboard.root, "kept", 20), Notes(note="look again"))
    page = open_page(dashboard.address + "/")
    page.locator('.ag-row[row-id="gone"] input[type=checkbox]').click()
    page.locator("#delete").click()
    confirm = page.locator("#delete-now")
    expect(confirm).to_be_disabled()
    page.locator("#delete-name").fill("gon")
    expect(confirm).to_be_disabled()
    page.locator("#delete-name").fill("gone")
    page.route("**/api/runs", lambda route: None)  # no news for now
    confirm.click()
    expect(page.locator('.ag-row[row-id="gone"]')).to_have_count(0)
    assert not folder.exists()
    page.locator('.ag-row[row-id="kept"] input[type=checkbox]').click()
    page.locator("#edit-notes").click()
    expect(page.locator("#notes-text")).to_have_value("look again")
    page.unroute_all(behavior="ignoreErrors")
    assert [one.name for one in list_trash(dashboard.root)] == ["gone"]


def tag(page: Page, names: list[str], *, add: str = "", remove: str = "") -> None:
    for name in names:
        page.locator(f'.ag-row[row-id="{name}"] input[type=checkbox]').check()
    page.get_by_role("button", name="Tags and note").click()
    box = page.locator("#notes-tags")
    expect(box).to_be_visible()
    if add:
        box.fill(add)
        box.press("Enter")
    if remove:
        page.get_by_role("dialog").locator(".mantine-TagsInput-pill", has_text=remove).locator("button").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_shared_tag_is_taken_away_from_several_runs_and_their_own_stay(dashboard: Served, open_page: Open) -> None:
    for name, tags in {"a": ("both", "only-a"), "b": ("both",)}.items():
        write_notes(make_run(dashboard.root, name, 20), Notes(tags, note=f"note of {name}"))
    page = open_page(dashboard.address + "/?side=0")
    tag(page, ["a", "b"], add="new", remove="both")
    expect(page.locator(".tag", has_text="new")).to_have_count(2)
    assert set(read_notes(dashboard.root / "a").tags) == {"new", "only-a"}
    assert read_notes(dashboard.root / "b") == Notes(("new",), note="note of b")


def test_a_tag_is_renamed_in_all_runs(dashboard: Served, open_page: Open) -> None:
    for name, tags in {"a": ("old", "x"), "b": ("old",), "c": ("other",)}.items():
        write_notes(make_run(dashboard.root, name, 20), Notes(tags))
    page = open_page(dashboard.address + "/?side=0")
    page.locator('.ag-row[row-id="c"] input[type=checkbox]').check()
    page.get_by_role("button", name="Tags and note").click()
    page.locator("#notes-text").fill("written before")
    page.get_by_text("Rename a tag in all runs").click()
    page.locator("#tag-old").click()
    page.get_by_role("option", name="old").click()
    page.locator("#tag-new").fill("x" * 61)
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.get_by_text("A tag has at most 60 characters")).to_be_visible()
    page.locator("#tag-new").fill("better")
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.get_by_text("Renamed in 2 runs")).to_be_visible()
    expect(page.locator(".tag", has_text="better")).to_have_count(2)
    found = {name: read_notes(dashboard.root / name).tags for name in "abc"}
    assert found == {"a": ("better", "x"), "b": ("better",), "c": ("other",)}
    expect(page.locator("#notes-text")).to_have_value("written before")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert read_notes(dashboard.root / "c") == Notes(("other",), "written before")


def test_unreadable_notes_are_reported_and_not_overwritten(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "torn", 20)
    (folder / files.NOTES).write_text('{"tags": ["precious"], "note": "wo')
    page = open_page(dashboard.address + "/")
    expect(page.locator('.ag-row[row-id="torn"] [title*="notes.json"]')).to_be_visible()
    page.locator('.ag-row[row-id="torn"] input[type=checkbox]').check()
    page.locator("#archive").click()
    expect(page.get_by_text("stay as they are")).to_be_visible()
    assert (folder / files.NOTES).read_text() == '{"tags": ["precious"], "note": "wo'


def test_the_table_comes_when_its_first_requests_have_failed(runs: Served, browser_page: Page) -> None:
    left = iter((True, True, False))

    def fail_at_first(route: Route) -> None:
        route.abort("connectionrefused") if next(left, False) else route.continue_()

    browser_page.route("**/api/runs", fail_at_first)
    browser_page.goto(runs.address + "/")
    expect(browser_page.locator('.ag-row[row-id="mlp-1"]').first).to_be_visible()
    expect(browser_page.locator("#run-count")).to_have_text("7")


def test_values_of_a_column_that_could_not_be_asked_for_are_asked_for_again(runs: Served, browser_page: Page) -> None:
    page = browser_page
    page.goto(runs.address + "/")
    expect(page.locator('.ag-row[row-id="mlp-1"]').first).to_be_visible()
    page.route("**/api/runs", lambda route: route.abort("connectionrefused"))
    with page.expect_event("requestfailed"):
        page.evaluate("darkit.table.choose(['name', 'config:model.act'])")
    page.unroute("**/api/runs")
    expect(page.locator('.ag-row[row-id="mlp-5"] [col-id="config:model.act"]')).to_have_text("gelu")


@pytest.mark.parametrize(
    ("address", "script", "shown"),
    [
        ("/", "ag-grid-*", '.ag-row[row-id="mlp-1"]'),
        ("/compare?run=mlp-0&run=mlp-1", "plotly-basic-*", ".plot[data-drawn]"),
    ],
)
def test_a_page_asks_again_for_a_long_script_that_did_not_come(
    runs: Served, browser_page: Page, address: str, script: str, shown: str
) -> None:
    left = iter((True, True, False))

    def fail_at_first(route: Route) -> None:
        route.fulfill(status=502, body="") if next(left, False) else route.continue_()

    browser_page.route(f"**/{script}", fail_at_first)
    browser_page.goto(runs.address + address)
    expect(browser_page.locator(shown).first).to_be_visible()
    expect(browser_page.locator("#offline")).to_be_hidden()
    assert next(left, None) is None
