"""Every column of a log is a metric: its charts and columns, and how its numbers are written; runs that diverged."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.compare import told_value
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.runs import files
from darkit.runs.numbers import number_text
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import add_columns, loss_at, make_run
from tests.dashboard.screen import drawn, point_at, trace

Open = Callable[..., Page]
NUMBERS = [
    0,
    1,
    2e-6,
    0.00012345678,
    0.001,
    0.5,
    -0.25,
    123456,
    123456.7,
    999999.6,
    1e6,
    12345678,
    2.5e9,
    -3.25e-7,
    1 / 3,
]


def update(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def home_of_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    make_run(root, "good", 300, seed=1)
    add_columns(
        make_run(root, "snn", 300, seed=2),
        {
            "firing_rate_10": lambda step: 0.1 / step,
            "firing_rate_9": lambda step: 2e-6 * (step % 7 + 1),
            "val_accuracy": lambda step: step / 300 if step % 100 == 0 else "",
        },
    )
    lost = dict.fromkeys(range(200, 301), math.nan)
    make_run(root, "lost", 300, seed=3, losses=lost)
    boom = make_run(root, "boom", 90, seed=4, state="crashed", reason="The loss is not finite")
    update(boom / files.STATUS, diverged=97)  # the row of this step was not logged
    wide = {f"layer{place // 10}/stat_{place % 10}": lambda step, place=place: step * place for place in range(150)}
    add_columns(make_run(root, "wide", 60, seed=5), {**wide, "val_z": lambda step: -step})
    with served(root) as one:
        yield one


def titles(page: Page) -> list[str]:
    return page.locator(".chart-title").all_inner_texts()


def test_every_column_with_numbers_is_a_chart_and_none_is_cut(home_of_metrics: Served, open_page: Open) -> None:
    page = open_page(home_of_metrics.address + "/run/snn")
    drawn(page, 2)
    assert titles(page) == ["val_loss", "train_loss", "val_accuracy", "firing_rate_*", "lr"]
    page.locator('[data-chart="firing_rate_*"]').scroll_into_view_if_needed()
    expect(page.locator('[data-chart="firing_rate_*"] .plot[data-drawn]')).to_be_attached()
    assert trace(page, "firing_rate_*", "snn")["y"][0] == pytest.approx(4e-6)
    page.goto(home_of_metrics.address + "/run/wide")
    drawn(page, 2)
    shown = titles(page)
    assert shown == ["val_loss", "train_loss", "val_z", *(f"layer{place}/stat_*" for place in range(15)), "lr"]
    last = page.locator('[data-chart="layer14/stat_*"]')
    last.scroll_into_view_if_needed()
    expect(last.locator(".legend-item").last).to_have_text("layer14/stat_9")


def test_every_metric_is_a_column_to_sort_by_and_only_what_can_be_good_has_a_best_one(
    home_of_metrics: Served, open_page: Open
) -> None:
    page = open_page(home_of_metrics.address + "/")
    expect(page.locator("#grid-box[data-filled='5']")).to_be_attached()
    page.locator("#columns").click()
    page.locator("#columns").fill("firing_rate_9")
    expect(page.get_by_role("option", name="firing_rate_9 · last")).to_be_visible()
    expect(page.get_by_role("option", name="firing_rate_9 · best")).to_have_count(0)
    page.locator("#columns").fill("lr · ")
    expect(page.get_by_role("option")).to_have_text(["lr · last"])
    page.locator("#columns").fill("layer14/stat_9")  # of a run with more metrics than every row has
    page.get_by_role("option", name="layer14/stat_9 · last").click()
    cell = page.locator('.ag-row[row-id="wide"] [col-id="last:layer14/stat_9"]')
    cell.scroll_into_view_if_needed()
    expect(cell).to_have_text("8940")
    page.goto(home_of_metrics.address + "/?col=name&col=last:firing_rate_9&sort=last:firing_rate_9.asc")
    expect(page.locator('.ag-row[row-id="snn"] [col-id="last:firing_rate_9"]')).to_have_text("1.4e-5")
    first = "() => darkit.table.grid.getDisplayedRowAtIndex(0)?.data.name"
    assert page.evaluate(first) == "snn"


def test_numbers_are_written_alike_everywhere(home_of_metrics: Served, open_page: Open) -> None:
    page = open_page(home_of_metrics.address + "/")
    for digits in (4, 5, 10):
        said = page.evaluate("([all, digits]) => all.map((one) => darkit.number(one, digits))", [NUMBERS, digits])
        assert said == [number_text(value, digits) for value in NUMBERS]
    assert number_text(2e-6) == "2e-6"
    assert number_text(0.00012345678) == "1.2346e-4"
    assert number_text(123456) == "123456"
    assert number_text(999999.6) == "1000000"


def test_a_run_that_diverged_says_where_in_the_table_on_its_page_and_in_its_chart(
    home_of_metrics: Served, open_page: Open
) -> None:
    page = open_page(
        home_of_metrics.address
        + "/?sort=best:train_loss.asc&col=state&col=name&col=last:train_loss&col=best:train_loss"
    )
    row = page.locator('.ag-row[row-id="lost"]')
    expect(row.locator('[col-id="last:train_loss"]')).to_have_text("NaN")
    expect(row.locator(".state-diverged")).to_contain_text("finished")
    expect(row.locator(".state-diverged")).to_have_attribute(
        "title", "train_loss is not finite from step 200 on.\nfinished"
    )
    names = "() => [0, 1, 2, 3, 4].map((place) => darkit.table.grid.getDisplayedRowAtIndex(place).data.name)"
    assert set(page.evaluate(names)[-2:]) == {"lost", "boom"}  # their best values come after those of sound runs
    page.goto(home_of_metrics.address + "/run/lost")
    expect(page.locator("#run-lost")).to_have_text("train_loss is not finite from step 200 on.")
    expect(page.locator("#run-state")).to_contain_text("diverged at step 200")
    page.goto(home_of_metrics.address + "/run/boom")
    expect(page.locator("#run-lost")).to_have_text("train_loss is not finite from step 97 on.")
    drawn(page, 1)
    assert trace(page, "train_loss", "boom", "odd")["x"] == [97]


def test_the_best_of_a_comparison_is_bold_only_where_low_or_high_is_better(
    home_of_metrics: Served, open_page: Open
) -> None:
    page = open_page(home_of_metrics.address + "/compare?run=good&run=snn&run=lost")
    table = page.locator("#values-box table")
    expect(table.locator("thead")).to_contain_text("firing_rate_9")
    expect(table.locator("td.best")).to_have_count(2)  # train_loss and val_loss; one run only has an accuracy
    expect(table.locator("tbody tr", has_text="lost").locator("td.best")).to_have_count(0)
    expect(table.locator("tbody tr", has_text="lost")).to_contain_text("diverged at step 200")
    expect(table.get_by_text("best @step", exact=True)).to_have_count(3)
    expect(table.locator("td.best .at-step").first).to_have_text(re.compile(r"^ ?@[0-9,]+$"))


def test_the_best_value_of_a_run_that_diverged_is_marked_and_last_wherever_runs_are_compared(
    home_of_metrics: Served, open_page: Open, tmp_path: Path
) -> None:
    page = open_page(home_of_metrics.address + "/compare?run=lost&run=good&run=snn", downloads=True)
    values = page.locator("#values-box")
    lost = values.locator("tbody tr", has_text="lost").locator("td.muted")
    expect(lost).to_have_count(2)  # of train_loss and val_loss
    expect(lost.first).to_contain_text("⚠")
    heading = values.get_by_role("button", name="best @step")
    for place in (0, 1):
        for _ in ("ascending", "descending"):
            heading.nth(place).click()
            expect(values.locator(".run-name").last).to_have_text("lost")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Save as HTML").click()
    coming.value.save_as(tmp_path / "page.html")
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.get_by_role("cell", name="⚠")).to_have_count(2)
    page.goto(home_of_metrics.address + "/run/lost")
    expect(page.locator("#strip-values .tile-more", has_text="best").first).to_contain_text("⚠")
    page.goto(home_of_metrics.address + "/run/good")
    expect(page.locator("#strip-values .tile-more", has_text="best").first).not_to_contain_text("⚠")


def copied(page: Page, button: Locator) -> str:
    """Return what a button copies."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('')")
    button.click()
    page.wait_for_function("() => navigator.clipboard.readText().then((text) => text !== '')")
    return str(page.evaluate("navigator.clipboard.readText()")).replace("\r\n", "\n")


def test_a_copied_table_has_durations_and_rates_as_the_page_and_plain_numbers_for_programs(
    home_of_metrics: Served, open_page: Open
) -> None:
    shown = ("name", "state", "duration", "rate", "best:train_loss")
    page = open_page(home_of_metrics.address + "/?sort=name.asc&" + "&".join(f"col={name}" for name in shown))
    expect(page.locator('.ag-row[row-id="lost"]').first).to_be_visible()
    texts = {}
    for kind in ("Markdown", "CSV"):
        page.locator("#copy-table summary").click()
        texts[kind] = copied(page, page.get_by_role("button", name=f"Table as {kind}"))
    lines = {line.split(" | ")[0].strip("| "): line for line in texts["Markdown"].splitlines()}
    assert " | 4 min 59 s | 100 |" in lines["good"]
    assert "(diverged)" not in lines["good"]
    assert " (diverged) |" in lines["lost"].removesuffix("\n")
    rows = {row["Name"]: row for row in csv.DictReader(io.StringIO(texts["CSV"]))}
    best = number_text(min(loss_at(step, 300, 1) for step in range(1, 301)))
    assert list(rows["good"].values()) == ["good", "finished", "299", "100", best]
    assert rows["lost"]["train_loss · best"] == ""
    assert "finished (diverged)" in rows["lost"].values()


def test_the_values_of_a_comparison_are_copied_as_they_are_sorted(home_of_metrics: Served, open_page: Open) -> None:
    page = open_page(home_of_metrics.address + "/compare?run=lost&run=good&run=snn")
    page.locator("#values-box").get_by_role("button", name="best @step").nth(1).click()
    expect(page.get_by_text("more keys below")).to_have_count(0)
    card = page.locator(".card", has=page.locator("#values-box"))
    losses = {place: min((loss_at(step, 300, place), step) for step in range(1, 301)) for place in (1, 2)}
    first = min(losses, key=lambda place: losses[place])
    loss, step = losses[first]
    names = {1: "good", 2: "snn"}
    markdown = copied(page, card.get_by_role("button", name="Table as Markdown")).splitlines()
    assert "train\\_loss" not in markdown[0]
    assert "| train_loss · last | train_loss · best @step |" in markdown[0]
    assert markdown[2].startswith(f"| {names[first]} | ")
    assert f"{number_text(loss)} @{step} |" in markdown[2]
    assert markdown[-1].startswith("| lost (diverged at step 200) | ")
    assert "(diverged) |" in markdown[-1]
    latex = copied(page, card.get_by_role("button", name="Table as LaTeX"))
    assert "train\\_loss · best @step" in latex
    rows = list(csv.DictReader(io.StringIO(copied(page, card.get_by_role("button", name="Table as CSV")))))
    assert (rows[0]["train_loss · best"], rows[0]["train_loss · Step"]) == (number_text(loss), str(step))
    assert (rows[-1]["train_loss · best"], rows[-1]["train_loss · Step"]) == ("", "")
    assert next(iter(rows[-1].values())) == "lost"  # for programs its name alone
    assert rows[0]["trainer.seed"] == str(first)


def test_keys_that_have_no_place_beside_the_values_are_counted(dashboard: Served, open_page: Open) -> None:
    for seed in range(2):
        make_run(dashboard.root, f"run-{seed}", 20, seed=seed, config={f"key{place}": seed for place in range(6)})
    page = open_page(dashboard.address + "/compare?run=run-0&run=run-1")
    expect(page.get_by_text("And 3 more keys below, in which the runs differ.")).to_be_visible()


def test_the_best_value_of_a_run_that_diverged_is_no_point_of_a_chart(home_of_metrics: Served) -> None:
    charts = Charts(Library(home_of_metrics.root, LogCache()))
    lost, good = charts.chosen(["lost", "good"], "log")
    assert told_value(good, "train_loss") == pytest.approx(0.4, abs=0.1)
    assert told_value(lost, "train_loss") is None
    assert told_value(lost, "lr") == 0.001  # of which no value is the best


def test_values_are_shown_wherever_the_pointer_is_on_a_chart(home_of_metrics: Served, open_page: Open) -> None:
    page = open_page(home_of_metrics.address + "/run/snn")
    drawn(page, 2)
    plot = page.locator('[data-chart="val_loss"] .plot')  # six points on the whole width
    point_at(page.locator('[data-chart="val_loss"]'), 0.02, 0.1)
    box = plot.locator(".nsewdrag").bounding_box()
    assert box is not None
    for part in range(1, 24):
        page.mouse.move(box["x"] + box["width"] * part / 24, box["y"] + box["height"] * (part % 5 + 1) / 7)
        expect(page.locator(".hover-box .hover-row")).to_have_count(1)


def test_a_chip_has_the_dash_of_its_curve(home_of_metrics: Served, open_page: Open) -> None:
    names = [f"gone-{place}" for place in range(7)]
    chosen = "&".join(f"run={name}" for name in ["good", *names, "snn"])  # the ninth begins the palette again
    page = open_page(f"{home_of_metrics.address}/compare?{chosen}")
    drawn(page, 1)
    expect(page.locator('.chip[data-name="good"] .run-dot.dash-solid')).to_be_visible()
    expect(page.locator('.chip[data-name="snn"] .run-dot.dash-dash')).to_be_visible()
    line = (
        "() => document.querySelector('[data-chart=train_loss] .plot').data.find((one) => one.meta.run === 'snn').line"
    )
    assert page.evaluate(line)["dash"] == "dash"


def test_a_saved_comparison_has_a_legend_and_configs_and_breaks_no_word(
    home_of_metrics: Served, open_page: Open, tmp_path: Path
) -> None:
    page = open_page(home_of_metrics.address + "/compare?run=good&run=snn&run=wide", downloads=True)
    drawn(page, 1)
    with page.expect_download() as coming:
        page.get_by_role("button", name="Save as HTML").click()
    coming.value.save_as(tmp_path / "page.html")
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator(".legend li")).to_have_text(["good", "snn", "wide"])
    expect(page.get_by_role("cell", name="model.width")).to_be_visible()
    heights = "() => [...document.querySelectorAll('th')].map((one) => one.offsetHeight)"
    assert max(page.evaluate(heights)) < 40  # one line each
