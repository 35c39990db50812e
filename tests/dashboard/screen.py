"""What tests look at on a page."""

from __future__ import annotations

from contextlib import suppress

from playwright.sync_api import Locator, Page, expect


def drawn(page: Page, charts: int) -> None:
    """Wait until so many charts are drawn; further down there may be others."""
    expect(page.locator(".plot[data-drawn]:not(.parallel)").nth(charts - 1)).to_be_attached()


def point_at(chart: Locator, x: float, y: float) -> None:
    """Hold the pointer over a part of a chart (0 to 1 in each direction) until the page shows the values there.

    Charts further up that are drawn meanwhile move the chart away from below the pointer.
    """
    place = chart.locator(".nsewdrag")
    for _ in range(20):
        size = place.bounding_box()
        assert size is not None
        place.hover(position={"x": size["width"] * x, "y": size["height"] * y})
        with suppress(AssertionError):
            expect(chart.page.locator(".hover-box .hover-row").first).to_be_attached(timeout=1000)
            return
    raise AssertionError("the chart shows no values")


def trace(page: Page, chart: str, run: str, kind: str = "raw") -> dict[str, list[float]]:
    return page.evaluate(
        """([chart, run, kind]) => {
            const plot = document.querySelector(`[data-chart="${chart}"] .plot`);
            const found = plot.data.find((one) => one.meta.run === run && one.meta.kind === kind);
            return found && {x: Array.from(found.x), y: Array.from(found.y)};
        }""",
        [chart, run, kind],
    )


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
