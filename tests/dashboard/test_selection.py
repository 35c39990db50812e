"""Which runs are ticked: in groups, under queries, and after a reload."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, Route, expect

from darkit.runs import files
from tests.dashboard.conftest import Served
from tests.dashboard.parts import add_columns, make_run
from tests.dashboard.screen import drawn

Open = Callable[..., Page]
CURVES = "() => darkit.boardOf(document.getElementById('charts')).runs.join()"


def tick(page: Page, *names: str) -> None:
    for name in names:
        box(page, name).check()


def box(page: Page, name: str) -> Locator:
    return page.locator(f'.ag-row[row-id="{name}"] input[type=checkbox]')


def group_box(page: Page, label: str) -> Locator:
    return page.locator(".ag-row", has_text=label).locator("input[type=checkbox]")


def in_address(page: Page) -> set[str]:
    return set(parse_qs(urlsplit(page.url).query).get("run", []))


def test_ticked_runs_stay_ticked_in_open_and_closed_groups_under_a_query_and_after_a_reload(
    runs: Served, open_page: Open
) -> None:
    page = open_page(runs.address + "/?col=name&sort=name.asc")
    count, query = page.locator("#selected-count"), page.locator("#search")
    chosen = {"mlp-0", "mlp-1", "mlp-2"}  # of both learning rates some
    tick(page, *sorted(chosen))
    drawn(page, 1)
    page.locator("#by").click()
    page.locator("#by").fill("trainer.lr")
    page.get_by_role("option", name="trainer.lr").click()
    expect(page.locator(".group-name")).to_have_count(3)
    for name in sorted(chosen):  # in groups that are opened for them
        expect(box(page, name)).to_be_checked()
    expect(count).to_have_text("3 selected")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="lr=0.1").click()
    expect(box(page, "mlp-0")).to_have_count(0)
    expect(count).to_have_text("3 selected")
    query.fill("mlp-1")
    expect(page.locator("#run-count")).to_have_text("1 of 7")
    expect(count).to_have_text("3 selected, 2 of them hidden by the filter")
    assert in_address(page) == chosen
    assert set(page.evaluate(CURVES).split(",")) == chosen
    query.fill("")
    expect(count).to_have_text("3 selected")
    page.reload()
    for name in sorted(chosen):
        expect(box(page, name)).to_be_checked()
    expect(page.get_by_role("button", name="lr=0.1")).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_role("button", name="lr=0.1")).to_contain_text("▾")
    expect(box(page, "mlp-4")).not_to_be_checked()
    tick(page, "mlp-4")
    expect(group_box(page, "lr=0.1 ")).to_be_checked()
    box(page, "mlp-0").uncheck()
    expect(group_box(page, "lr=0.1 ")).not_to_be_checked()
    expect(count).to_have_text("3 selected")
    group_box(page, "lr=0.1 ").check()
    expect(box(page, "mlp-0")).to_be_checked()
    expect(count).to_have_text("4 selected")
    group_box(page, "lr=0.1 ").uncheck()
    expect(box(page, "mlp-4")).not_to_be_checked()
    expect(count).to_have_text("1 selected")
    page.get_by_label("Clear the selection").click()
    expect(page.locator("#selection-bar")).to_be_hidden()
    expect(box(page, "mlp-1")).not_to_be_checked()
    assert in_address(page) == set()


def test_a_run_that_comes_into_a_ticked_group_is_ticked_and_a_deleted_one_is_not_any_more(
    dashboard: Served, open_page: Open
) -> None:
    for name in "ab":
        make_run(dashboard.root, name, 20, lr=0.1)
    page = open_page(dashboard.address + "/?col=name&by=trainer.lr")
    group_box(page, "lr=0.1").check()
    expect(page.locator("#selected-count")).to_have_text("2 selected (all matching)")
    aside = dashboard.root.parent  # where a run is whole before the page sees it
    make_run(aside, "c", 20, lr=0.1).rename(dashboard.root / "c")
    expect(page.locator("#selected-count")).to_have_text("3 selected (all matching)")
    expect(group_box(page, "lr=0.1")).to_be_checked()
    (dashboard.root / "a").rename(aside / "a")
    expect(page.locator("#selected-count")).to_have_text("2 selected (all matching)")
    assert in_address(page) == {"b", "c"}


def test_a_run_whose_config_comes_after_its_folder_is_ticked_with_its_group_and_the_group_counts_it(
    dashboard: Served, open_page: Open
) -> None:
    make_run(dashboard.root, "a", 20, lr=0.1)
    page = open_page(dashboard.address + "/?col=name&by=trainer.lr")
    group_box(page, "lr=0.1").check()
    aside = dashboard.root.parent
    (make_run(aside, "b", 20, lr=0.1) / files.TRAINER_CONFIG).rename(aside / "late")
    (aside / "b").rename(dashboard.root / "b")
    expect(group_box(page, "lr=–")).not_to_be_checked()
    expect(page.locator("#selected-count")).to_have_text("1 selected")  # it said of all before
    (aside / "late").rename(dashboard.root / "b" / files.TRAINER_CONFIG)
    expect(page.locator("#selected-count")).to_have_text("2 selected (all matching)")
    expect(page.locator(".group-name")).to_have_text(["▸ lr=0.1 (2)"])
    assert in_address(page) == {"a", "b"}


def test_escape_closes_a_menu_and_only_the_next_one_clears_the_selection(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?col=name&run=mlp-0&run=mlp-1")
    drawn(page, 1)
    for menu in ("#more", "#copy-table", "#views", ".chart-card details.menu >> nth=0"):
        page.locator(menu).locator("summary").click()
        expect(page.locator("details.menu[open]")).to_have_count(1)
        expect(page.locator(menu).locator(".menu-items").locator("button, input").first).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        expect(page.locator("details.menu[open]")).to_have_count(0)
        expect(page.locator(menu).locator("summary")).to_be_focused()
        expect(page.locator("#selected-count")).to_have_text("2 selected")
    page.keyboard.press("Escape")
    expect(page.locator("#selection-bar")).to_be_hidden()
    page.locator("#copy-table summary").click()
    expect(page.locator("details.menu[open]")).to_have_count(1)
    page.keyboard.press("Shift+Tab")  # the focus leaves it
    expect(page.locator("details.menu[open]")).to_have_count(0)


def test_the_runs_of_a_link_are_ticked_as_soon_as_the_server_has_read_them(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    reading = [True]

    def answer(route: Route) -> None:
        found = route.fetch()
        values = found.json()
        if reading:  # one run is not read yet
            values |= {"version": 0, "waiting": 1, "names": [name for name in values["names"] if name != "mlp-1"]}
            values["rows"] = [row for row in values["rows"] if row["name"] != "mlp-1"]
        route.fulfill(response=found, json=values)

    page.route("**/api/runs", answer)
    page.goto(runs.address + "/?col=name&run=mlp-0&run=mlp-1")
    expect(page.locator("#run-count")).to_have_text("6")
    assert in_address(page) == {"mlp-0", "mlp-1"}
    reading.clear()
    expect(page.locator("#selected-count")).to_have_text("2 selected")
    expect(box(page, "mlp-1")).to_be_checked()
    assert in_address(page) == {"mlp-0", "mlp-1"}
    page.unroute_all(behavior="wait")


def test_the_curves_of_a_grouped_table_are_grouped_from_the_start_and_with_it(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?col=name&by=trainer.lr&run=mlp-0&run=mlp-2&run=mlp-4&run=mlp-1")
    chips = page.locator("#charts-side .chip-name")
    expect(chips).to_have_text(["0.01 (1)", "0.1 (3)"])
    page.locator(".by-choice button").last.click()  # no groups
    expect(chips).to_have_text(["mlp-0", "mlp-2", "mlp-4", "mlp-1"])
    page.locator("#by").fill("trainer.lr")
    page.get_by_role("option", name="trainer.lr").click()
    expect(chips).to_have_text(["0.01 (1)", "0.1 (3)"])
    page.keyboard.press("Escape")
    page.locator("#charts-side label", has_text="Log").first.click()
    page.wait_for_url("**log=1**")
    expect(chips).to_have_text(["0.01 (1)", "0.1 (3)"])
    assert "group" not in parse_qs(urlsplit(page.url).query)


def test_of_very_many_ticked_runs_the_page_says_which_have_curves_and_groups_have_all(
    dashboard: Served, open_page: Open
) -> None:
    for seed in range(60):
        make_run(dashboard.root, f"run-{seed:02}", 4, seed=seed, lr=0.1, config={"width": 8})
    page = open_page(dashboard.address + "/?col=name&col=last:train_loss")
    expect(page.locator("#run-count")).to_have_text("60")
    page.get_by_label("Column with Header Selection").or_(page.locator(".ag-header-select-all input")).first.check()
    hint = page.locator("#charts-hint")
    expect(hint).to_have_text("Curves of the first 50 of 60 ticked runs.")
    expect(page.locator("#charts-side .chip")).to_have_count(50)
    page.locator("#by").fill("trainer.lr")
    page.get_by_role("option", name="trainer.lr").click()
    expect(page.locator("#charts-side .chip-name")).to_have_text(["0.1 (60)"])
    expect(page.locator(".spread")).to_contain_text("(60)")
    expect(hint).to_be_hidden()


def test_a_window_without_room_for_charts_has_no_button_for_them(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?col=name&run=mlp-0")
    drawn(page, 1)
    page.set_viewport_size({"width": 999, "height": 800})
    expect(page.locator("#charts-side")).to_be_hidden()
    expect(page.locator("#show-charts")).to_be_hidden()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("charts")
    expect(page.get_by_role("option")).to_have_count(0)
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 1000, "height": 800})
    expect(page.locator("#charts-side")).to_be_visible()
    expect(page.locator("#show-charts")).to_be_visible()


def test_any_column_of_the_ticked_runs_is_the_x_axis_of_their_curves(dashboard: Served, open_page: Open) -> None:
    for seed in range(2):
        add_columns(make_run(dashboard.root, f"run-{seed}", 60, seed=seed), {"tokens": lambda step: 512 * step})
    page = open_page(dashboard.address + "/?col=name&run=run-0")
    drawn(page, 1)
    page.locator("#x-column").click()
    page.get_by_role("option", name="tokens").click()
    axis = "() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.at(-1)"
    page.wait_for_function(f"{axis} === 512 * 60")
    assert parse_qs(urlsplit(page.url).query)["x"] == ["tokens"]
    page.reload()
    expect(page.locator("#x-column")).to_have_value("tokens")
    page.wait_for_function(f"{axis} === 512 * 60")


def test_the_columns_of_a_page_that_was_left_are_not_offered(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    drawn(page, 1)
    expect(page.locator("#x-column-box")).to_be_visible()
    for key in "gr":
        page.keyboard.press(key)
    expect(page.locator("#run-count")).to_have_text("7")
    expect(page.locator("#x-column-box")).to_be_attached()
    expect(page.locator("#x-column-box")).to_be_hidden()
    tick(page, "mlp-0")
    expect(page.locator("#x-column-box")).to_be_visible()


def test_the_palette_asks_for_the_names_of_runs_alone_and_once(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    drawn(page, 1)
    answers = []
    for _ in range(2):
        with page.expect_response("**/api/runs") as answer:
            page.keyboard.press("Control+k")
        answers.append(answer.value.json())
        page.get_by_role("combobox").fill("mlp 5")
        expect(page.get_by_role("option")).to_have_text(["mlp-5"])
        page.keyboard.press("Escape")
        expect(page.locator("#palette")).to_have_count(0)
    assert [answer["rows"] for answer in answers] == [[], []]
    assert [answer["names"] is None for answer in answers] == [False, True]


def test_more_runs_than_are_exported_at_once_say_so(dashboard: Served, open_page: Open) -> None:
    for seed in range(201):
        make_run(dashboard.root, f"run-{seed:03}", 1, seed=seed)
    page = open_page(dashboard.address + "/?col=name&side=0")
    expect(page.locator("#run-count")).to_have_text("201")
    page.locator(".ag-header-select-all input").first.check()
    expect(page.locator("#export-runs")).to_have_attribute("title", "At most 200 runs are exported at once")
    expect(page.locator("#export-runs")).to_be_disabled()
    page.locator(".ag-row input[type=checkbox]").first.uncheck()
    expect(page.locator("#export-runs")).to_be_enabled()
    expect(page.locator("#export-runs")).to_have_attribute("title", "")
