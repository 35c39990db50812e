"""What the pages' own scripts keep, forget and report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.texts import duration_text
from darkit.runs import files
from darkit.runs.notes import Notes, write_notes
from tests.dashboard.conftest import Served
from tests.dashboard.parts import add_columns, make_run
from tests.dashboard.screen import drawn, trace

Open = Callable[..., Page]
SECONDS = [0, 0.04, 0.25, 9.94, 10, 10.5, 59.4, 61, 3599, 3600, 7325, 47.9 * 3600, 48 * 3600, 1e6]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_durations_are_written_alike_everywhere(runs: Served, open_page: Open, language: str) -> None:
    page = open_page(runs.address + f"/?lang={language}")
    expect(page.locator("#words")).to_be_attached()
    said = page.evaluate("(all) => all.map((one) => darkit.duration(one))", SECONDS)
    assert said == [duration_text(language, one) for one in SECONDS]


@pytest.mark.parametrize(
    ("act", "reported"),
    [
        ("() => { undefined.there; }", True),
        ("() => { new Array(-1); }", True),
        ("async () => { throw new darkit.Unreachable(); }", False),
        ("async () => { throw new Error('Refused.'); }", False),
    ],
)
def test_a_mistake_in_what_a_page_repeats_is_reported(
    runs: Served, browser_page: Page, act: str, reported: bool
) -> None:
    browser_page.goto(runs.address)
    expect(browser_page.locator(".ag-row").first).to_be_attached()
    errors: list[str] = []
    browser_page.on("pageerror", lambda error: errors.append(str(error)))
    browser_page.evaluate(f"async () => {{ const act = {act}; darkit.repeat(() => act()).end(); await 0; await 0; }}")
    assert bool(errors) == reported


def test_an_answer_that_breaks_off_is_that_of_a_server_that_is_gone(runs: Served, browser_page: Page) -> None:
    browser_page.goto(runs.address)
    expect(browser_page.locator(".ag-row").first).to_be_attached()
    broken = """async () => {
      const body = new ReadableStream({start: (to) => to.error(new TypeError("network error"))});
      window.fetch = async () => new Response(body);
      try {
        await (await darkit.ask("/api/homes", {})).json();
      } catch (error) {
        return error instanceof darkit.Unreachable;
      }
    }"""
    assert browser_page.evaluate(broken)
    expect(browser_page.locator("#offline")).to_be_visible()


def test_plots_that_left_the_page_are_forgotten(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?" + "&".join(f"run=mlp-{seed}" for seed in range(5)))
    drawn(page, 2)
    page.locator("#parallel").scroll_into_view_if_needed()
    for name in ("parallel", "scatter"):
        expect(page.locator(f"#{name}[data-drawn]")).to_be_attached()
    page.evaluate("window.kept = ['parallel', 'scatter'].map((name) => document.getElementById(name))")
    assert page.evaluate("kept.every((plot) => plot._fullLayout)")
    page.get_by_role("link", name="darkit").first.click()
    expect(page.locator(".ag-row").first).to_be_attached()
    page.wait_for_function("() => kept.every((plot) => !plot._fullLayout)")


def test_a_chart_that_leaves_its_board_is_forgotten(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    drawn(page, 2)
    page.evaluate("window.kept = document.querySelector('[data-chart=train_loss] .plot')")
    assert page.evaluate("Boolean(kept._fullLayout)")
    page.evaluate("darkit.remember({join: JSON.stringify(['train_loss', 'val_loss'])}); darkit.logBoard().refresh()")
    page.wait_for_function("() => !kept.isConnected && !kept._fullLayout")


def test_what_of_a_query_is_wrong_is_underlined_behind_spaces_too(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address)
    expect(page.locator(".ag-row").first).to_be_attached()
    page.locator("#search").fill("   mlp train_loss<")
    expect(page.locator(".query-wrong")).to_have_text("train_loss<")


def test_a_group_whose_runs_all_diverged_says_so(dashboard: Served, open_page: Open) -> None:
    lost = {step: float("nan") for step in range(50, 101)}
    for seed in range(4):
        make_run(
            dashboard.root, f"r{seed}", 100, seed=seed, lr=[0.1, 0.01][seed % 2], losses=lost if seed % 2 else None
        )
    page = open_page(dashboard.address + "/?by=trainer.lr&col=name&col=last:train_loss&col=best:train_loss")
    groups = page.locator(".ag-center-cols-container .ag-row")
    expect(groups).to_have_count(2)
    row = groups.filter(has=page.locator(".lost"))
    for column in ("last", "best"):
        expect(row.locator(f'[col-id="{column}:train_loss"]')).to_have_text("diverged (2/2)")


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        ((2026, 10, 25, 0, 0), 0),
        ((2026, 10, 25, 23, 30), 0),  # of a day of 25 hours
        ((2026, 10, 26, 0, 0), 1),
        ((2026, 10, 24, 23, 59), -1),
    ],
)
def test_a_day_of_25_hours_is_one_day_of_the_filter(
    runs: Served, open_page: Open, moment: tuple[int, int, int, int, int], wanted: int
) -> None:
    page = open_page(runs.address, timezone_id="Europe/Berlin")
    expect(page.locator(".ag-row").first).to_be_attached()
    seconds = datetime(*moment, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    compare = "(at) => darkit.table.grid.getColumnDef('started').filterParams.comparator(new Date(2026, 9, 25), at)"
    assert page.evaluate(compare, seconds) == wanted


def test_the_clock_of_a_chart_is_that_of_the_table_in_summer_and_winter(dashboard: Served, open_page: Open) -> None:
    for name, month in (("summer", 7), ("winter", 1)):
        start = datetime(2025, month, 1, 12, tzinfo=UTC).timestamp()
        folder = make_run(dashboard.root, name, 3, started=start)
        head = "step,time,train_loss\n"
        (folder / files.LOG).write_text(head + "".join(f"{step},{start + 60 * step},1\n" for step in (1, 2, 3)))
    page = open_page(dashboard.address + "/compare?run=summer&run=winter&axis=wall", timezone_id="America/New_York")
    drawn(page, 1)
    first = {name: trace(page, "train_loss", name)["x"][0] / 1000 for name in ("summer", "winter")}
    told = {name: datetime.fromtimestamp(one, UTC).strftime("%m-%d %H:%M") for name, one in first.items()}
    assert told == {"summer": "07-01 08:01", "winter": "01-01 07:01"}


def test_config_values_have_all_their_digits_and_tags_group_in_any_order(dashboard: Served, open_page: Open) -> None:
    for seed, tags in ((1234567890, ("a", "b")), (1234567891, ("b", "a"))):
        folder = make_run(dashboard.root, f"run-{seed}", 20, config={"seed": seed, "rate": 0.1 + 0.2})
        write_notes(folder, Notes(tags))
    page = open_page(dashboard.address + "/?col=name&col=config:model.seed&col=config:model.rate")
    for seed in (1234567890, 1234567891):
        row = page.locator(f'.ag-row[row-id="run-{seed}"]')
        expect(row.locator('[col-id="config:model.seed"]')).to_have_text(str(seed))
        expect(row.locator('[col-id="config:model.rate"]')).to_have_text("0.3")
    page.goto(dashboard.address + "/?by=model.seed&col=name")
    expect(page.locator(".ag-row", has_text="seed=1234567891")).not_to_have_count(0)
    page.goto(dashboard.address + "/?by=tags&col=name")
    expect(page.locator(".ag-center-cols-container .ag-row")).to_have_count(1)


def test_of_many_metrics_the_list_says_how_many_more_there_are(dashboard: Served, open_page: Open) -> None:
    letters = "abcdefghijklmno"
    names = [f"m_{one}{two}" for one in letters for two in letters][:203]
    add_columns(make_run(dashboard.root, "one", 3), {name: lambda step: step for name in names})
    page = open_page(dashboard.address + "/run/one")
    drawn(page, 2)
    page.get_by_text("Combine").click()
    expect(page.locator(".join-item")).to_have_count(200)
    expect(page.locator(".join-list .muted")).to_have_text("6 more match: search for them")
    page.get_by_placeholder("Search metrics").fill("m_a")
    expect(page.locator(".join-item")).to_have_count(15)
    expect(page.locator(".join-list .muted")).to_have_count(0)
