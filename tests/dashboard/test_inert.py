"""Everything from a run is text: no payload in a name, value, column or note does anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.charts.export import harmless
from darkit.runs import files
from darkit.runs.notes import Notes, write_notes
from tests.dashboard.conftest import Served
from tests.dashboard.parts import STARTED, make_run
from tests.dashboard.screen import point_at

EVIL = "evil.example"
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    "<b onmouseover=alert(1)>x</b>",
    f"<img src=http://{EVIL}/x.png>",
    f"<link rel=stylesheet href=//{EVIL}/x.css>",
    f"<iframe src=//{EVIL}></iframe>",
    f"<style>@import '//{EVIL}/x.css';</style>",
    f"<object data=//{EVIL}/x>",
    f"<embed src=//{EVIL}/x>",
    f"<base href=//{EVIL}/>",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<math><mi xlink:href=javascript:alert(1)>x</mi></math>",
    "<marquee onstart=alert(1)>",
    "<form action=javascript:alert(1)><button>x",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "#{alert(1)}",
    "<%= alert(1) %>",
    "\\u003cscript\\u003ealert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;img src=x onerror=alert(1)&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "</title><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre><script>alert(1)</script>",
    "<!--<img src='--><img src=x onerror=alert(1)>'",
    "<scr<script>ipt>alert(1)</script>",
    "<IMG SRC=x OnErRoR=alert(1)>",
    "<img src=x onerror='alert(1)'>",
    f"<a href='http://{EVIL}'>click</a>",
    "%{y}<extra><img src=x onerror=alert(1)></extra>",
    "$$\\href{javascript:alert(1)}{x}$$",
    f"<img srcset=//{EVIL}/x>",
    f"url(//{EVIL}/x)",
    '=HYPERLINK("http://evil.example")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "-2+3",
    "\u202e<script>alert(1)</script>",
    "constructor",
    "__proto__",
]
Open = Callable[..., Page]


def field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def poisoned(root: Path) -> list[str]:
    """One run per payload, with it in every place that a run can fill."""
    names = []
    for index, payload in enumerate(PAYLOADS):
        name = "".join(letter for letter in payload if letter not in "/\\:\u202e")[:80].strip().lstrip(".") or "x"
        name = f"{name}{index}"
        column = payload.replace("\n", " ")
        folder = make_run(
            root,
            name,
            5,
            seed=index,
            state="crashed",
            reason=payload,
            traceback=payload,
            series={payload: ["step", column]},
            config={payload: payload, "nested": {payload: [payload]}, "n": index},
        )
        rows = "".join(f"{step},{STARTED + step},{step / 7!r}\n" for step in range(1, 6))
        (folder / files.LOG).write_text(f"step,time,{field(column)}\n{rows}", encoding="utf-8")
        (folder / "system_log.csv").write_text(f"time,step,{field(column)}\n1,1,5\n", encoding="utf-8")
        info = files.read_json(folder / files.RUN)
        info["model"] = {"class": payload}
        info["git"] = {"commit": payload, "diff": payload}
        info["command"] = [payload, payload]
        info["data"] = {payload: payload}
        files.write_json(folder / files.RUN, info)
        (folder / files.MODEL_SOURCE).write_text(payload, encoding="utf-8")
        (folder / files.CONSOLE).write_text(f"{payload}\n\x1b[31m{payload}\n", encoding="utf-8")
        files.write_json(
            folder / files.TOKENIZER,
            {"model": {"type": payload, "vocab": {payload: 1}}, "added_tokens": [{"content": payload}]},
        )
        (folder / "iter-5-ckpt.pth").write_bytes(b"1")
        files.write_json(folder / "iter-5-ckpt.json", {"size": 1, "sha256": payload, "metrics": {payload: payload}})
        write_notes(folder, Notes((payload[:60],), payload))
        names.append(name)
    return names


def test_no_payload_does_anything_anywhere(dashboard: Served, open_page: Open) -> None:
    names = poisoned(dashboard.root)
    assert len(names) == 50
    page = open_page(
        dashboard.address
        + "/?col=state&col=name&col=tags&col=note&col=model&"
        + "&".join(f"col=config:model.{quote(one)}" for one in PAYLOADS[:6])
    )
    expect(page.locator("#grid-box[data-filled='50']")).to_have_count(1)
    expect(page.locator(".ag-row").first).to_be_visible()
    page.mouse.move(300, 300)
    assert_inert(page)
    chosen = "&".join(f"run={quote(name)}" for name in names)
    page.goto(f"{dashboard.address}/compare?{chosen}&all=1&group=model.n&unfold={quote(PAYLOADS[0])}")
    expect(page.locator(".chart-card")).to_have_count(50)
    expect(page.locator(".plot[data-drawn]").first).to_be_visible()
    page.goto(f"{dashboard.address}/compare?{chosen}&all=1")
    expect(page.locator(".chart-card")).to_have_count(50)
    for index in range(0, 50, 5):
        card = page.locator(".chart-card").nth(index)
        card.scroll_into_view_if_needed()
        expect(card.locator(".plot[data-drawn]")).to_have_count(1)
        point_at(card, 0.5, 0.5)
    page.locator("#config-grid").scroll_into_view_if_needed()
    assert_inert(page)
    for name in names[::10]:
        visit(page, dashboard, name)


@pytest.mark.soak
def test_no_payload_does_anything_on_the_page_of_any_run(dashboard: Served, open_page: Open) -> None:
    names = poisoned(dashboard.root)
    page = open_page(dashboard.address + "/")
    for name in names:
        visit(page, dashboard, name)


def visit(page: Page, dashboard: Served, name: str) -> None:
    page.goto(f"{dashboard.address}/run/{quote(name, safe='')}")
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    for tab in ("Overview", "Config", "Checkpoints", "Machine", "Console", "Source", "Prompt", "Notes"):
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(page.get_by_role("tabpanel")).to_be_visible()
        assert_inert(page)


@pytest.mark.soak
def test_payloads_are_text_in_dialogs_messages_and_the_list_of_columns(dashboard: Served, open_page: Open) -> None:
    names = poisoned(dashboard.root)
    page = open_page(dashboard.address + "/")
    expect(page.locator("#grid-box[data-filled='50']")).to_have_count(1)
    page.locator("#columns").click()
    page.locator("#columns").fill("onerror")
    expect(page.get_by_role("option").first).to_be_visible()
    assert_inert(page)
    page.keyboard.press("Escape")
    for name in names[:2]:
        page.locator("#search").fill('"' + name.replace('"', '""') + '"')
        row = page.locator(".ag-row input[type=checkbox]")
        expect(row).to_have_count(1)
        row.check()
        page.locator("#edit-notes").click()
        expect(page.locator("#notes-text")).not_to_have_value("")
        page.get_by_text("Rename a tag in all runs").click()
        page.locator("#tag-old").click()
        expect(page.get_by_role("option").first).to_be_visible()
        assert_inert(page)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.locator("#delete").click()
        expect(page.locator("#delete-text")).to_have_text(name)
        page.locator("#delete-name").fill(name)
        page.locator("#delete-now").click()
        expect(page.get_by_text("Moved to .trash").last).to_contain_text(name)
        assert_inert(page)


def test_payloads_are_text_in_the_page_that_is_saved(dashboard: Served, open_page: Open, tmp_path: Path) -> None:
    names = poisoned(dashboard.root)
    chosen = "&".join(f"run={quote(name)}" for name in names)
    page = open_page(f"{dashboard.address}/compare?{chosen}", downloads=True)
    expect(page.locator(".plot[data-drawn]").first).to_be_visible()
    with page.expect_download() as coming:
        page.get_by_role("button", name="Save as HTML").click()
    saved = tmp_path / "comparison.html"
    coming.value.save_as(saved)
    page.goto(saved.as_uri())
    page.wait_for_function("() => document.querySelectorAll('.chart.js-plotly-plot').length === 50")
    assert_inert(page)
    for name in names[::7]:
        expect(page.locator("table >> text=" + json.dumps(name)).first).to_be_attached()


def assert_inert(page: Page) -> None:
    """Nothing of a payload became an element of the page."""
    made = page.evaluate(
        """(evil) => [...document.querySelectorAll(
            'img, iframe, object, embed, base, video, marquee, math, main script')]
        .map((one) => one.outerHTML.slice(0, 200))
        .concat([...document.querySelectorAll(
            `[href*="//${evil}"], [src*="//${evil}"], [href^="javascript"], [onerror], [onload]`)]
        .map((one) => one.outerHTML.slice(0, 200)))""",
        EVIL,
    )
    assert made == []


def test_text_is_exported_so_that_no_spreadsheet_takes_it_for_a_formula() -> None:
    for payload in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
        assert harmless(payload) == f"'{payload}"
    assert harmless("mlp-1") == "mlp-1"
