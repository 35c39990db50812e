"""The pages as a person sees them, in a real Chromium: languages, colours, sizes, keyboard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import darkit.dashboard
from darkit.dashboard.charts.colours import PALETTE
from darkit.dashboard.texts import LANGUAGES
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import assert_nothing_cut_off, brightness, drawn

Open = Callable[..., Page]
ASSETS = Path(darkit.dashboard.__file__).parent / "assets"


@pytest.mark.few(2)
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
    page.locator("#parallel").scroll_into_view_if_needed()  # it is drawn near the screen
    expect(page.locator("#parallel[data-drawn]")).to_have_count(1)
    assert_nothing_cut_off(page)
    page.goto(runs.address + "/run/broken-off")
    drawn(page, 2)
    expect(page.locator("#run-state")).to_have_text(words["state_crashed"])
    assert_nothing_cut_off(page)
    for tab in (
        "overview",
        "config",
        "graph",
        "checkpoints",
        "machine",
        "media",
        "console",
        "source",
        "prompt",
        "notes",
    ):
        name = words[f"tab_{tab}"]
        page.get_by_role("tab", name=name, exact=True).click()
        expect(page.get_by_role("tabpanel")).to_be_visible()
        assert_nothing_cut_off(page)
    assert brightness(page) < 100 if dark else brightness(page) > 200


def test_a_large_screen_is_filled_and_nothing_is_cut_off(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/?run=mlp-0&run=mlp-1")
    page.set_viewport_size({"width": 1920, "height": 1080})
    drawn(page, 2)
    assert_nothing_cut_off(page)
    right, bottom = page.evaluate(
        "(({right, bottom}) => [right, bottom])(document.getElementById('runs-split').getBoundingClientRect())"
    )
    assert 1880 < right <= 1920
    assert 1050 < bottom <= 1080
    for address in ("/compare?run=mlp-0&run=mlp-1", "/run/broken-off"):
        page.goto(runs.address + address)
        drawn(page, 2)
        assert_nothing_cut_off(page)


def test_an_address_without_a_page_shows_one_that_says_so(runs: Served, browser_page: Page) -> None:
    answer = browser_page.goto(runs.address + "/nonsense/x")
    assert answer is not None
    assert answer.status == 404
    expect(browser_page.get_by_text("Page not found.")).to_be_visible()
    browser_page.get_by_role("link", name="Show all runs").click()
    expect(browser_page.locator(".ag-row")).not_to_have_count(0)


def test_every_page_has_a_title_of_its_own(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-1")
    expect(page).to_have_title("mlp-1 · darkit")
    page.locator("a.brand").click()
    expect(page).to_have_title("Runs · darkit")


def test_the_language_is_switched_and_stays(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="运行")).to_be_visible()
    page.goto(runs.address + "/run/mlp-0")
    expect(page.locator("#run-state")).to_have_text("已完成")


def test_dark_and_light_are_switched_and_the_charts_follow(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0")
    drawn(page, 2)
    page.get_by_role("button", name="Dark or light").click()
    page.wait_for_function("() => document.querySelector('.plot').layout?.font.color === '#c1c2c5'")
    assert brightness(page) < 100


def test_an_empty_home_shows_the_first_commands_and_a_new_run_appears_without_a_reload(
    dashboard: Served, open_page: Open
) -> None:
    page = open_page(dashboard.address + "/")
    expect(page.locator("#empty-home")).to_contain_text("darkit train")
    expect(page.locator("#empty-home")).to_contain_text(str(dashboard.root))
    make_run(dashboard.root, "first", 20)
    expect(page.locator('.ag-row[row-id="first"]')).not_to_have_count(0)
    expect(page.locator("#empty-home")).to_be_hidden()


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


def test_every_text_is_said_somewhere() -> None:
    room = Path(darkit.dashboard.__file__).parent
    code = "".join(path.read_text() for path in room.rglob("*.py") if path.parent.name != "texts")
    code += "".join(path.read_text() for path in room.glob("assets/*.js"))
    made = (
        "state_",
        "size_",
        "media_",
        "log_",
        "col_",
        "tab_",
        "machine_",
        "axis_",
        "grid_",
        "event_",
        "contrast_",
        "spiking_",
    )
    assert [
        key for key in LANGUAGES["en"] if f'"{key}"' not in code and f"'{key}'" not in code and not key.startswith(made)
    ] == []


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("ground", ["#ffffff", "#25262b"])
def test_every_curve_stands_out_from_the_ground_in_dark_and_light(ground: str) -> None:
    for shown in PALETTE:
        bright, dim = sorted((luminance(shown), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) > 2.9, shown
    assert all(shown in (ASSETS / "chips.js").read_text() for shown in PALETTE), "the page's script has the same ones"


def test_tables_filter_in_the_language_of_the_page(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/", locale="zh-CN")
    head = page.locator('.ag-header-cell[col-id="name"]')
    head.hover()
    head.locator(".ag-header-cell-filter-button").click()
    expect(page.locator(".ag-filter")).to_contain_text("包含")
    page.locator(".ag-filter input:visible").first.fill("nothing like this")
    expect(page.get_by_text("没有匹配的运行")).to_be_visible()
