"""The charts of a page in a browser: sections, filter, places, several series in one, the pointer, colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.charts.colours import PALETTE, places_of
from darkit.runs.notes import read_notes
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import add_columns, make_run
from tests.dashboard.screen import drawn, point_at

Open = Callable[..., Page]
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def home_of_layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    for seed, name in enumerate(NAMES):
        rates = {f"firing_rate_{layer}": lambda step, layer=layer: (layer + 1) / step for layer in range(6)}
        parts = {f"grad/{part}": lambda step: step for part in ("norm", "max", "min")}
        level = {"level": lambda step, seed=seed: seed * 10 + step / 300}
        add_columns(make_run(root, name, 300, seed=seed), {**rates, **parts, **level})
    with served(root) as one:
        yield one


def titles(page: Page) -> list[str]:
    return page.locator(".chart-title:visible").all_inner_texts()


def menu(page: Page, chart: str, word: str) -> None:
    page.locator(f'[data-chart="{chart}"] summary').click()
    page.locator(f'[data-chart="{chart}"]').get_by_role("button", name=word).click()


def test_sections_fold_charts_are_filtered_pinned_moved_and_sized_and_all_stays(
    home_of_layers: Served, open_page: Open
) -> None:
    page = open_page(home_of_layers.address + "/run/one")
    drawn(page, 2)
    first = ["val_loss", "train_loss", "firing_rate_*", "level", "lr"]
    grads = ["grad/max", "grad/min", "grad/norm"]
    assert titles(page) == first + grads
    page.locator("[data-section=grad] summary.section-head").click()
    expect(page.locator('[data-chart="grad/max"]')).to_be_hidden()
    menu(page, "lr", "Pin to the top")
    expect(page.locator("[data-section=pinned] .chart-title")).to_have_text(["lr"])
    menu(page, "firing_rate_*", "Move earlier")
    page.get_by_role("button", name="Small charts").click()
    moved = ["lr", "val_loss", "firing_rate_*", "train_loss", "level"]
    assert titles(page) == moved
    page.goto(home_of_layers.address + "/run/two")  # what a reader arranged holds for every run
    drawn(page, 2)
    assert titles(page) == moved
    expect(page.locator(".chart-board[data-size=small]")).to_be_visible()
    field = page.get_by_placeholder("Filter charts (regex)")
    field.fill("^grad/m|LOSS$")
    expect(page.locator(".chart-count")).to_have_text("4 of 8")
    assert titles(page) == ["val_loss", "train_loss", "grad/max", "grad/min"]  # what is found is not folded away
    assert parse_qs(urlsplit(page.url).query)["show"] == ["^grad/m|LOSS$"]
    page.reload()
    drawn(page, 2)
    assert titles(page) == ["val_loss", "train_loss", "grad/max", "grad/min"]
    page.get_by_placeholder("Filter charts (regex)").fill("firing_rate_4")  # a series in a chart of several
    expect(page.locator(".chart-count")).to_have_text("1 of 8")
    page.get_by_placeholder("Filter charts (regex)").fill("(")
    expect(page.locator(".chart-count")).to_have_text("0 of 8")
    expect(page.get_by_placeholder("Filter charts (regex)")).to_have_attribute("aria-invalid", "true")


def test_series_are_put_into_one_chart_and_taken_apart(home_of_layers: Served, open_page: Open) -> None:
    page = open_page(home_of_layers.address + "/run/one")
    drawn(page, 2)
    rates = [f"firing_rate_{layer}" for layer in range(6)]
    page.locator('[data-chart="firing_rate_*"]').scroll_into_view_if_needed()
    expect(page.locator('[data-chart="firing_rate_*"] .legend-item')).to_have_text(rates)
    menu(page, "firing_rate_*", "Show each in its own chart")
    expect(page.locator('[data-chart="firing_rate_5"]')).to_be_visible()
    page.get_by_text("Combine").click()
    page.locator(".join-item", has_text="firing_rate_0").locator("input").check()
    page.locator(".join-item", has_text="level").locator("input").check()
    page.get_by_role("button", name="Show in one chart").click()
    card = page.locator('[data-chart="firing_rate_0 + level"]')
    card.scroll_into_view_if_needed()
    expect(card.locator(".legend-item")).to_have_text(["firing_rate_0", "level"])
    page.reload()
    drawn(page, 2)
    expect(card).to_be_attached()
    page.get_by_label("Column as x axis").first.click()
    page.get_by_role("option", name="firing_rate_3").click()
    page.wait_for_function(
        "() => document.querySelector('[data-chart=train_loss] .plot').layout.xaxis.title.text === 'firing_rate_3'"
    )
    assert parse_qs(urlsplit(page.url).query)["x"] == ["firing_rate_3"]


def test_the_values_under_the_pointer_are_sorted_the_nearest_stands_out_and_every_chart_has_its_line(
    home_of_layers: Served, open_page: Open
) -> None:
    (home_of_layers.root / "one" / "iter-150-ckpt.pth").write_bytes(b"x")
    page = open_page(f"{home_of_layers.address}/compare?{'&'.join(f'run={name}' for name in NAMES)}&show=level|loss")
    drawn(page, 3)
    card = page.locator('[data-chart="level"]')
    point_at(card, 0.5, 0.52)
    rows = page.locator(".hover-box .hover-row")
    expect(rows.locator(".hover-name")).to_have_text(["three", "two", "one"])
    expect(page.locator(".hover-box .hover-row.nearest .hover-name")).to_have_text("two")
    expect(page.locator(".hover-box .hover-head")).to_contain_text("Step 15")
    expect(page.locator(".hover-box")).not_to_contain_text("checkpoint")
    faded = """() => [...document.querySelectorAll('[data-chart=level] .scatterlayer > .trace')]
        .map((one) => one.style.opacity)"""
    assert page.evaluate(faded)[:3] == ["0.22", "", "0.22"]
    lines = page.locator(".cursor-line")
    expect(lines).to_have_count(3)
    box = card.locator(".nsewdrag").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2)
    expect(page.locator(".hover-box")).to_contain_text("checkpoint iter-150-ckpt")
    page.mouse.move(5, 5)
    expect(page.locator(".hover-box")).to_have_count(0)
    expect(lines).to_have_count(0)
    assert set(page.evaluate(faded)) == {""}


def test_a_tap_shows_the_values_until_the_next_one_elsewhere(home_of_layers: Served, open_page: Open) -> None:
    page = open_page(f"{home_of_layers.address}/run/one", wide=False, has_touch=True)
    page.set_viewport_size({"width": 390, "height": 1600})  # nothing scrolls, which would hide the values too
    drawn(page, 2)
    plot = page.locator('[data-chart="val_loss"] .nsewdrag')
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    plot.tap(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(page.locator(".hover-box .hover-row")).to_have_count(1)
    left = "() => document.querySelector('[data-chart=val_loss] .plot').dispatchEvent(new PointerEvent('pointerleave', "
    page.evaluate(left + "{pointerType: 'touch'}))")  # which a browser sends as soon as the finger is lifted
    expect(page.locator(".hover-box .hover-row")).to_have_count(1)
    other = page.locator('[data-chart="train_loss"]')
    other.locator(".nsewdrag").tap(position={"x": box["width"] / 2, "y": 10})
    expect(other.locator(".cursor-line.own")).to_have_count(1)
    expect(page.locator(".hover-box .hover-row")).to_have_count(1)
    page.locator("h1").first.tap()
    expect(page.locator(".hover-box")).to_have_count(0)


def test_a_chart_of_many_curves_names_them_in_a_list_that_scrolls(dashboard: Served, open_page: Open) -> None:
    rates = {f"rate_{layer}": lambda step, layer=layer: (layer + 1) / step for layer in range(24)}
    add_columns(make_run(dashboard.root, "one", 30), rates)
    page = open_page(f"{dashboard.address}/run/one")
    drawn(page, 1)
    card = page.locator('[data-chart="rate_*"]')
    card.scroll_into_view_if_needed()
    expect(card.locator(".legend-item")).to_have_text([f"rate_{layer}" for layer in range(24)])
    heights = card.locator(".chart-legend").evaluate("(one) => [one.clientHeight, one.scrollHeight]")
    assert heights[0] < 70 < heights[1]
    page.evaluate("""() => {
        const [card] = [...darkit.logBoard().cards.values()].filter((one) => one.members.length > 1);
        const {meta} = card.plot.data[0];
        card.plot.data = Array.from({length: 70}, (_, place) => ({name: `${place}`, line: {color: "#000"}, meta}));
        darkit.showLegend(card);
    }""")
    expect(card.locator(".legend-item")).to_have_count(64)
    expect(card.locator(".legend-more")).to_have_text("and 6 more, which the pointer shows")


def test_a_run_has_its_colour_on_every_page_and_another_one_is_chosen(home_of_layers: Served, open_page: Open) -> None:
    page = open_page(f"{home_of_layers.address}/compare?run=three&run=one")
    drawn(page, 2)
    (place,) = places_of(["three"], {})
    line = """() => document.querySelector('[data-chart=train_loss] .plot').data
        .find((one) => one.meta.run === 'three').line.color"""
    assert page.evaluate(line) == PALETTE[place]
    wanted = (place + 3) % 8
    page.get_by_role("button", name="Color of three").click()
    page.get_by_role("menuitem", name=f"Color {wanted + 1}", exact=True).click()
    page.wait_for_function(f"() => ({line})() === '{PALETTE[wanted]}'")
    dot = page.locator("#values-box tr", has_text="three").locator(".run-dot")
    expect(dot).to_have_attribute("style", f"--curve: {PALETTE[wanted]};")
    assert read_notes(home_of_layers.root / "three").colour == wanted
    page.goto(home_of_layers.address + "/run/three")
    drawn(page, 2)
    assert page.evaluate(line) == PALETTE[wanted]
    page.get_by_role("button", name="Color of three").click()
    page.get_by_role("menuitem", name="Automatic").click()
    page.wait_for_function(f"() => ({line})() === '{PALETTE[place]}'")
