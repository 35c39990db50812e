"""The media of runs: shown by step, those of several runs side by side, and never as anything but what they are."""

from __future__ import annotations

import io
import json
import struct
import wave
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from darkit.dashboard.charts.distribution import SHARES, quantiles
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.media import MOST_STEPS, histograms_of, list_media, medium_content
from darkit.errors import MediaError
from darkit.runs import files
from darkit.runs.media import MediaStore
from darkit.runs.media_content import histogram_json, table_json
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run

Open = Callable[..., Page]
EVIL = "<img src=x onerror=alert(1)> words"


def png(grey: int) -> bytes:
    """Return a picture of one pixel."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(bytes([0, grey]))) + part(b"IEND", b"")
    )


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return out.getvalue()


def normal(mean: float) -> bytes:
    counts, edges = np.histogram(np.random.default_rng(0).normal(mean, 1, 1000), 20)
    return histogram_json(edges.tolist(), counts.tolist())


@pytest.fixture(scope="module")
def home_of_media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    for name, first in (("one", 10), ("two", 20)):
        store = MediaStore(make_run(root, name, 60))
        for step in range(first, 60, 20):
            store.add("image", "samples", step, png(step), "png", time=step, caption=f"{EVIL} {name} {step}")
            store.add("text", "story", step, f"once upon {step} times {EVIL}".encode(), "txt", time=step)
            store.add("histogram", "weights", step, normal(step), "json", time=step)
            store.add("figure", "photo", step, png(step), "png", time=step)
        store.add("audio", "voice", 5, wav(), "wav", time=5)
        store.add(
            "table", "errors", 5, table_json(["word", "loss"], [[EVIL, 0.000123], *[["a", 1]] * 300]), "json", time=5
        )
        title = {"title": {"text": "<a href='https://example.org'>go</a>"}}
        bars = {"data": [{"type": "bar", "x": ["a", "b"], "y": [1, 2], "name": EVIL}], "layout": title}
        store.add("figure", "bars", 5, json.dumps(bars).encode(), "json", time=5)
        picture = [{"source": "https://example.org/x.png", "name": "x", "x": 0, "y": 1, "sizex": 1, "sizey": 1}]
        looks: dict[str, object] = {"images": picture, "template": {"layout": {"images": picture}}}
        looks |= {"xaxis": {"domain": [0, 0.4]}, "xaxis2": {"domain": [0.6, 1]}, "yaxis2": {"anchor": "x2"}}
        kinds: list[dict[str, object]] = [
            {"type": "heatmap", "z": [[1, 2], [3, 4]]},
            {"type": "contour", "z": [[1, 2], [3, 4]]},
        ]
        second: dict[str, object] = {"xaxis": "x2", "yaxis": "y2"}
        kinds += [{"type": "box", "y": [1, 2, 9], **second}, {"type": "violin", "y": [1, 2, 9], **second}]
        kinds += [{"type": "histogram", "y": [1, 1, 2], **second}, {"type": "scattergl", "x": [1], "y": [1]}]
        heat = {"data": kinds, "layout": {**looks, "title": {"text": "<span style='background:url(//a.org)'>x</span>"}}}
        store.add("figure", "heat", 5, json.dumps(heat).encode(), "json", time=5)
        parts = {"data": [{"type": "scatter", "x": ["a href='https://example.org'>Sign in</a>"], "y": [1]}]}
        parts["layout"] = {"xaxis": {"type": "category", "tickprefix": "<"}}
        store.add("figure", "parts", 5, json.dumps(parts).encode(), "json", time=5)
        space = {"data": [{"type": "scatter3d", "x": [1], "y": [1], "z": [1]}]}
        store.add("figure", "space", 5, json.dumps(space).encode(), "json", time=5)
    with served(root) as one:
        yield one


def test_media_are_shown_by_step_and_beside_those_of_another_run(home_of_media: Served, open_page: Open) -> None:
    page = open_page(f"{home_of_media.address}/compare?run=one&run=two")
    expect(page.locator(".media-board[data-filled='10']")).to_be_visible()
    images = page.locator('[data-media="image:samples"]')
    images.scroll_into_view_if_needed()
    expect(images.locator("img")).to_have_count(2)
    expect(images.locator(".step-said")).to_have_text("step 50")
    expect(images.locator(".media-column").nth(0)).to_contain_text(f"{EVIL} one 50")
    expect(images.locator(".media-column").nth(1)).to_contain_text("two 40")  # what it logged last before
    expect(images.locator(".media-column").nth(1).locator(".medium-step")).to_have_text("step 40")
    page.get_by_label("Move all sliders together").click(force=True)
    images.locator(".step-slider").fill("1")
    expect(images.locator(".step-said")).to_have_text("step 20")
    expect(images.locator(".media-column").nth(0)).to_contain_text("one 10")
    width = "() => document.querySelector('[data-media=\"image:samples\"] img').naturalWidth"
    page.wait_for_function(f"() => ({width})() === 1")
    story = page.locator('[data-media="text:story"]')
    story.scroll_into_view_if_needed()
    expect(story.locator(".step-said")).to_have_text("step 20")
    story.locator(".step-slider").fill("3")
    expect(story.locator("pre").first).to_have_text(f"once upon 30 times {EVIL}")
    story.get_by_role("button", name="Difference to the step before").click()
    expect(story.locator(".media-column").nth(0).locator("ins")).to_have_text("30")
    expect(story.locator(".media-column").nth(0).locator("del")).to_have_text("10")


def test_histograms_tables_sounds_and_figures_are_shown(home_of_media: Served, open_page: Open) -> None:
    page = open_page(f"{home_of_media.address}/run/one?tab=media")
    weights = page.locator('[data-media="histogram:weights"]')
    weights.scroll_into_view_if_needed()
    expect(weights.locator(".medium-plot[data-drawn]")).to_be_visible()
    expect(weights.locator(".distribution[data-drawn]")).to_be_visible()
    median = "() => Array.from(document.querySelector('.distribution').data.at(-1).y)"
    assert page.evaluate(median) == pytest.approx([10, 30, 50], abs=0.2)
    table = page.locator('[data-media="table:errors"]')
    table.scroll_into_view_if_needed()
    expect(table.locator("tbody tr").first).to_contain_text(EVIL)
    expect(table.locator("tbody tr").first).to_contain_text("1.23e-4")
    expect(table).to_contain_text("200 of 301 rows")
    page.locator('[data-media="audio:voice"]').scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('audio')?.duration === 0.1")
    bars = page.locator('[data-media="figure:bars"]')
    bars.scroll_into_view_if_needed()
    expect(bars.locator(".medium-plot[data-drawn]")).to_be_visible()
    expect(bars.locator("a[href], .medium-plot a")).to_have_count(0)
    parts = page.locator('[data-media="figure:parts"]')
    parts.scroll_into_view_if_needed()
    expect(parts.locator(".medium-plot[data-drawn]")).to_contain_text("<a href=")
    expect(parts.locator(".medium-plot a")).to_have_count(0)
    heat = page.locator('[data-media="figure:heat"]')
    heat.scroll_into_view_if_needed()
    expect(heat.locator(".medium-plot[data-drawn] .heatmaplayer image")).to_be_attached()
    for layer in (".boxlayer .trace", ".contourlayer .contour", ".barlayer .trace", ".scatterlayer .trace"):
        expect(heat.locator(layer).first).to_be_attached()
    expect(heat.locator(".imagelayer image, [style*='a.org']")).to_have_count(0)
    assert page.evaluate("Plotly.PlotSchema.get().traces.heatmap") is None  # the page's own one stays
    space = page.locator('[data-media="figure:space"]')
    space.scroll_into_view_if_needed()
    expect(space).to_contain_text("scatter3d")
    page.goto(f"{home_of_media.address}/run/one?tab=media&lang=zh")
    expect(page.get_by_text("同步所有滑块")).to_be_visible()


@pytest.mark.parametrize("kind", ["histogram:weights", "figure:photo"])
def test_what_comes_late_is_not_shown_under_another_step(home_of_media: Served, open_page: Open, kind: str) -> None:
    page = open_page(f"{home_of_media.address}/run/one?tab=media")
    card = page.locator(f'[data-media="{kind}"]')
    card.scroll_into_view_if_needed()
    expect(card.locator(".medium > *")).to_be_visible()
    held: list[Route] = []
    page.route("**/api/medium", lambda route: route.continue_() if held else held.append(route))
    look = "(card) => card.querySelector('.medium-plot')?.data[0].x[0] ?? card.querySelector('img').src"
    last = card.evaluate(look)
    with page.expect_request("**/api/medium"):
        card.locator(".step-slider").fill("0")
    card.locator(".step-slider").fill("1")
    page.wait_for_function(f"([card, last]) => ({look})(card) !== last", arg=[card.element_handle(), last])
    middle = card.evaluate(look)
    with page.expect_response("**/api/medium"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert card.evaluate(look) == middle


@pytest.fixture
def folder(home: Path) -> Path:
    return make_run(home / "base", "one", 20)


def test_only_media_in_the_index_are_sent_and_of_very_many_steps_some(folder: Path, home: Path) -> None:
    store = MediaStore(folder)
    for step in range(MOST_STEPS + 20):
        store.add("text", "story", step, b"same", "txt", time=0)
    (listed,) = list_media([Library(home / "base", LogCache()).facts("one")])["keys"]
    steps = [step for step, _, _ in listed["runs"]["one"]]
    assert (len(steps), steps[0], steps[-1]) == (MOST_STEPS, 0, MOST_STEPS + 19)
    file = listed["runs"]["one"][0][1]
    assert medium_content(folder, file) == (b"same", "text/plain; charset=utf-8")
    (folder / files.MEDIA / f"{'0' * 64}.txt").write_bytes(b"not logged")
    for name in (f"{'0' * 64}.txt", "../run.json", "index.jsonl"):
        with pytest.raises(MediaError, match="has no medium"):
            medium_content(folder, name)
    (folder / files.MEDIA / file).write_bytes(b"other words")
    with pytest.raises(MediaError, match="has changed"):
        medium_content(folder, file)


def test_what_is_no_histogram_is_left_out_of_the_distribution(folder: Path) -> None:
    store = MediaStore(folder)
    sound = histogram_json([0, 1, 2], [1, 3])
    broken = [b"[]", b"{}", b'{"edges": [0, 1], "counts": [1, 2]}', b'{"edges": [1, 0], "counts": [1]}',
              b'{"edges": [0, 1e999], "counts": [1]}', b'{"edges": [0, 1], "counts": [-1]}',
              b'{"edges": [0, 1], "counts": [true]}', b'{"edges": [0, 1], "counts": [0]}', b"[" * 5000]  # fmt: skip
    for step, data in enumerate([*broken, sound]):
        store.add("histogram", "h", step, data, "json", time=0)
    ((step, edges, counts),) = histograms_of(folder, "h")
    assert (step, edges.tolist(), counts.tolist()) == (len(broken), [0, 1, 2], [1, 3])


def test_the_lines_of_a_distribution_are_the_quantiles_of_the_values() -> None:
    values = np.random.default_rng(1).normal(size=200_000)
    counts, edges = np.histogram(values, 400, range=(-8, 8))
    expected = np.quantile(values, SHARES)
    np.testing.assert_allclose(quantiles(edges, counts.astype(float)), expected, atol=0.05)
