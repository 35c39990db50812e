"""The pages as a person sees them, in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.texts import LANGUAGES
from darkit.runs import files
from darkit.runs.notes import read_notes
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import loss_at, make_run

Open = Callable[..., Page]
SPIKE = 1234


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Six runs that no test changes: two learning rates, three seeds."""
    root = tmp_path_factory.mktemp("home") / "base"
    for seed in range(6):
        losses = {SPIKE: 40.0} if seed == 1 else {700: float("nan"), 701: float("inf")} if seed == 2 else None
        make_run(root, f"mlp-{seed}", 6000, seed=seed, lr=[0.1, 0.01][seed % 2], losses=losses)
    folder = make_run(
        root,
        "broken-off",
        300,
        seed=9,
        state="crashed",
        reason="ValueError: boom",
        traceback="Traceback ...\nValueError: boom",
    )
    (folder / "iter-200-ckpt.pth").write_bytes(b"x" * 2048)
    manifest = {"size": 2048, "sha256": "ab" * 32, "step": 200, "metrics": {"val_loss": 0.5}, "run": "1"}
    files.write_json(folder / "iter-200-ckpt.json", manifest)
    (folder / "iter-300-ckpt.pth").write_bytes(b"x")
    (folder / files.MODEL_SOURCE).write_text("class MLP:\n    pass\n")
    (folder / "system_log.csv").write_text("time,step,cpu,memory,disk_free\n1,1,50,20,900\n11,2,60,21,899\n")
    with served(root) as one:
        yield one


def drawn(page: Page, charts: int) -> None:
    expect(page.locator(".plot[data-drawn]:not(.parallel)")).to_have_count(charts)


def trace(page: Page, chart: str, run: str, kind: str = "raw") -> dict[str, list[float]]:
    return page.evaluate(
        """([chart, run, kind]) => {
            const plot = document.querySelector(`[data-chart="${chart}"] .plot`);
            const found = plot.data.find((one) => one.meta.run === run && one.meta.kind === kind);
            return found && {x: Array.from(found.x), y: Array.from(found.y)};
        }""",
        [chart, run, kind],
    )


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_every_page_speaks_the_browsers_language_in_its_colours_and_nothing_is_cut_off(
    runs: Served, open_page: Open, locale: str, dark: bool, wide: bool
) -> None:
    words = LANGUAGES[locale[:2]]
    page = open_page(runs.address + "/", wide=wide, dark=dark, locale=locale)
    expect(page.get_by_role("heading", name=words["runs"])).to_be_visible()
    expect(page.locator(".ag-row")).not_to_have_count(0)
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark" if dark else "light")
    assert_nothing_cut_off(page)
    page.goto(runs.address + "/compare?run=mlp-0&run=mlp-1&run=mlp-2&run=mlp-3&run=mlp-4")
    drawn(page, 2)
    expect(page.get_by_role("heading", name=words["configs"], exact=True)).to_be_visible()
    expect(page.locator("#parallel[data-drawn]")).to_have_count(1)
    assert_nothing_cut_off(page)
    page.goto(runs.address + "/run/broken-off")
    drawn(page, 2)
    expect(page.locator("#run-state")).to_have_text(words["state_crashed"])
    assert_nothing_cut_off(page)
    for tab in ("overview", "config", "checkpoints", "machine", "source", "prompt", "notes"):
        name = words["notes"] if tab == "notes" else words[f"tab_{tab}"]
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.get_by_role("tabpanel")).to_be_visible()
        assert_nothing_cut_off(page)
    assert brightness(page) < 100 if dark else brightness(page) > 200


def assert_nothing_cut_off(page: Page) -> None:
    """No page is wider than the screen, and no text of ours is clipped."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    clipped = page.evaluate(
        """[...document.querySelectorAll('h1, h2, button, .state, .chip-name, label, dd, dt')]
        .filter((one) => one.offsetParent && !one.closest('.ag-root-wrapper, .columns-choice')
            && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX === 'hidden')
        .map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert clipped == []


def brightness(page: Page) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour[4:-1].split(",")) / 3


def test_the_table_shows_state_step_and_the_last_and_best_of_each_series(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    row = page.locator('.ag-row[row-id="mlp-0"]')
    expect(row.first).to_contain_text("finished")
    text = " ".join(page.locator('.ag-row[row-id="mlp-0"]').all_inner_texts())
    assert "6,000 / 6,000" in text
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
    page.locator("#columns").fill("model.width")
    page.get_by_role("option", name="model.width").click()
    page.wait_for_function("() => dash_ag_grid.getApi('grid').getColumn('config:model.width') !== null")
    query = parse_qs(urlsplit(page.url).query)
    assert query["q"] == ["mlp-"]
    assert query["sort"] == ["name.asc"]
    assert "config:model.width" in query["col"]
    page.reload()
    expect(page.locator("#search")).to_have_value("mlp-")
    expect(page.locator("#run-count")).to_have_text("6 of 7")
    expect(page.locator('.ag-header-cell[col-id="name"]')).to_have_attribute("aria-sort", "ascending")
    page.wait_for_function("() => dash_ag_grid.getApi('grid').getColumn('config:model.width') !== null")


def test_chosen_runs_are_compared_and_a_click_on_a_name_opens_its_page(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    for name in ("mlp-0", "mlp-3"):
        page.locator(f'.ag-row[row-id="{name}"] input[type=checkbox]').click()
    page.get_by_role("button", name="Compare 2").click()
    drawn(page, 2)
    assert parse_qs(urlsplit(page.url).query)["run"] == ["mlp-0", "mlp-3"] or "mlp-3" in page.url
    page.go_back()
    page.locator('.ag-row[row-id="mlp-3"] a').click()
    expect(page.get_by_role("heading", name="mlp-3")).to_be_visible()


def test_a_spike_of_one_step_survives_the_thinning(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-1")
    drawn(page, 2)
    shown = trace(page, "train_loss", "mlp-1")
    assert len(shown["x"]) <= 2010
    assert max(shown["y"]) == 40.0
    assert shown["x"][shown["y"].index(40.0)] == SPIKE


def test_nan_and_infinity_are_marked_where_they_happened(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-2")
    drawn(page, 2)
    assert trace(page, "train_loss", "mlp-2", "odd")["x"] == [700, 701]
    assert not {700, 701} & set(trace(page, "train_loss", "mlp-2")["x"])


def test_zooming_in_asks_for_finer_points_in_all_charts_until_the_raw_ones_show(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1")
    drawn(page, 2)
    assert len(trace(page, "train_loss", "mlp-0")["x"]) < 3000
    with page.expect_response(lambda answer: answer.url.endswith("/api/charts")):
        page.evaluate(
            "Plotly.relayout(document.querySelector('[data-chart=train_loss] .plot'), {'xaxis.range': [1000, 1500]})"
        )
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.length < 600")
    shown = trace(page, "train_loss", "mlp-0")
    assert shown["x"] == list(range(999, 1502))
    assert shown["y"] == [loss_at(step, 6000, 0) for step in range(999, 1502)]
    assert page.evaluate("document.querySelector('[data-chart=val_loss] .plot').layout.xaxis.range") == [1000, 1500]
    query = parse_qs(urlsplit(page.url).query)
    assert (query["low"], query["high"]) == (["1000"], ["1500"])
    box = page.locator("[data-chart=val_loss] .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80, steps=4)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x.length < 200")
    page.get_by_role("button", name="Whole range").click()
    page.wait_for_function("() => document.querySelector('[data-chart=train_loss] .plot').data[0].x[0] === 1")
    assert "low" not in page.url


def test_the_view_is_in_the_address_and_a_reload_shows_the_same(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1&run=mlp-2&run=mlp-3")
    drawn(page, 2)
    page.get_by_label("Log scale").click(force=True)
    page.locator("label", has_text="Relative").click()
    page.get_by_role("slider", name="Smoothing").press("ArrowRight")
    page.locator('.chip[data-name="mlp-1"] .chip-toggle').click()
    page.get_by_label("All keys").click(force=True)
    page.wait_for_url("**all=1**")
    query = parse_qs(urlsplit(page.url).query)
    assert {key: query[key] for key in ("log", "axis", "smooth", "hide", "all")} == {
        "log": ["1"],
        "axis": ["relative"],
        "smooth": ["0.01"],
        "hide": ["mlp-1"],
        "all": ["1"],
    }
    page.reload()
    drawn(page, 2)
    state = page.evaluate(
        """() => { const plot = document.querySelector('[data-chart=train_loss] .plot'); return {
            log: plot.layout.yaxis.type, last: Math.max(...plot.data[0].x),
            hidden: plot.data.filter((one) => one.visible === false).map((one) => one.meta.run)} }"""
    )
    assert state["log"] == "log"
    assert state["last"] == pytest.approx(59.99, abs=0.01)
    assert set(state["hidden"]) == {"mlp-1"}
    expect(page.get_by_label("All keys")).to_be_checked()


def test_groups_show_mean_and_deviation_and_unfold_into_single_runs(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-4&run=mlp-1&group=trainer.lr")
    drawn(page, 2)
    mean = trace(page, "val_loss", "0.1", "mean")
    expected = [sum(loss_at(int(step), 6000, seed) for seed in (0, 4)) / 2 for step in mean["x"]]
    assert mean["y"] == pytest.approx(expected)
    assert trace(page, "val_loss", "mlp-0") is None
    page.locator('.chip[data-name="0.1"] .chip-toggle').click()
    page.wait_for_function(
        """() => document.querySelector('[data-chart=val_loss] .plot').data
        .filter((one) => one.meta.kind === 'raw').length === 2"""
    )
    assert "unfold=0.1" in page.url


def test_configs_stand_side_by_side_with_only_what_differs(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1")
    grid = page.locator("#config-grid")
    grid.scroll_into_view_if_needed()
    expect(grid.locator('[col-id="key"] >> text=model.width')).to_be_visible()
    expect(grid.locator("text=model.act")).to_have_count(0)
    page.get_by_label("All keys").click(force=True)
    expect(grid.locator("text=model.act")).to_be_visible()
    best = page.locator("table.numbers .best")
    expect(best).to_have_count(2)


def test_a_charts_points_are_exported_whole_and_its_picture_as_png_and_svg(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-2&smooth=0.9", downloads=True)
    drawn(page, 2)

    def export(word: str) -> bytes:
        chart = page.locator('[data-chart="train_loss"]')
        chart.locator("summary").click()
        with page.expect_download() as coming:
            chart.get_by_role("button", name=word).click()
        return Path(coming.value.path()).read_bytes()

    table = list(csv.reader(io.StringIO(export("All points").decode())))
    assert table[0] == ["run", "step", "train_loss"]
    values = {(name, int(step)): float(loss) for name, step, loss in table[1:]}
    assert len(values) == 12_000
    assert all(values["mlp-0", step] == loss_at(step, 6000, 0) for step in range(1, 6001))
    assert values["mlp-2", 700] != values["mlp-2", 700]
    assert values["mlp-2", 701] == float("inf")
    assert export("(PNG)").startswith(b"\x89PNG")
    picture = export("(SVG)")
    assert picture.startswith(b"<svg")
    assert b"mlp-2" in picture


def test_a_comparison_is_saved_as_one_page_that_needs_no_server(runs: Served, open_page: Open, tmp_path: Path) -> None:
    page = open_page(runs.address + "/compare?run=mlp-0&run=mlp-1", downloads=True)
    drawn(page, 2)
    with page.expect_download() as coming:
        page.get_by_role("button", name="Save as one page").click()
    saved = tmp_path / "comparison.html"
    coming.value.save_as(saved)
    page.context.set_offline(True)
    page.goto(saved.as_uri())
    page.wait_for_function("() => document.querySelectorAll('.chart.js-plotly-plot').length === 2")
    expect(page.locator("table >> text=mlp-1").first).to_be_visible()
    shown = page.evaluate("Math.max(...document.getElementById('chart-0')._fullData[1].y)")
    assert shown == 40.0


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


def test_the_language_is_switched_and_stays(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    page.get_by_role("button", name="Language: zh").click()
    expect(page.get_by_role("heading", name="运行")).to_be_visible()
    page.goto(runs.address + "/run/mlp-0")
    expect(page.locator("#run-state")).to_have_text("已完成")


def test_dark_and_light_are_switched_and_the_charts_follow(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    drawn(page, 2)
    page.get_by_role("button", name="Dark or light").click()
    page.wait_for_function("() => document.querySelector('.plot').layout?.font.color === '#c1c2c5'")
    assert brightness(page) < 100


def test_an_empty_home_says_what_to_run_and_a_new_run_appears_by_itself(dashboard: Served, open_page: Open) -> None:
    page = open_page(dashboard.address + "/")
    expect(page.locator("#empty-home")).to_contain_text("darkit train")
    expect(page.locator("#empty-home")).to_contain_text(str(dashboard.root))
    make_run(dashboard.root, "first", 20)
    expect(page.locator('.ag-row[row-id="first"]')).not_to_have_count(0)
    expect(page.locator("#empty-home")).to_be_hidden()


def test_tags_and_notes_are_written_and_shown(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    page = open_page(dashboard.address + "/")
    page.locator('.ag-row[row-id="one"] input[type=checkbox]').click()
    page.get_by_role("button", name="Tags and note").click()
    page.locator("#notes-tags").fill("good")
    page.locator("#notes-tags").press("Enter")
    page.locator("#notes-text").fill("keep this\none")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".tag", has_text="good")).to_be_visible()
    assert read_notes(folder).tags == ("good",)
    assert read_notes(folder).note == "keep this\none"


def test_an_archived_run_is_out_of_sight_until_it_is_asked_for(dashboard: Served, open_page: Open) -> None:
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
    page = open_page(dashboard.address + "/")
    page.locator('.ag-row[row-id="gone"] input[type=checkbox]').click()
    page.locator("#delete").click()
    confirm = page.locator("#delete-now")
    expect(confirm).to_be_disabled()
    page.locator("#delete-name").fill("gon")
    expect(confirm).to_be_disabled()
    page.locator("#delete-name").fill("gone")
    confirm.click()
    expect(page.locator('.ag-row[row-id="gone"]')).to_have_count(0)
    assert not folder.exists()
    assert (dashboard.root.parent / ".trash" / "gone" / files.RUN).is_file()


def test_the_page_can_be_used_by_keyboard_alone(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    expect(page.locator(".ag-row")).not_to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("mlp-4")
    expect(page.locator("#run-count")).to_have_text("1 of 7")
    page.locator('.ag-row[row-id="mlp-4"] .run-link').focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="mlp-4")).to_be_visible()
    page.locator('[role="tab"][aria-selected="true"]').focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Overview")).to_have_attribute("aria-selected", "true")


def test_texts_are_the_same_set_in_every_language() -> None:
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    assert english.keys() == chinese.keys()
    placeholders = lambda text: sorted(part.split("}")[0] for part in text.split("{")[1:])  # noqa: E731
    assert {key: placeholders(text) for key, text in english.items()} == {
        key: placeholders(text) for key, text in chinese.items()
    }
    assert json.dumps(chinese)
