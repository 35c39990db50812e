"""Runs of several homes in one table, on pages of their own and in one comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from darkit.runs import files
from darkit.runs.notes import read_notes
from darkit.runs.roots import Root
from tests.dashboard.conftest import served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import drawn
from tests.runs.parts import wait_until

Open = Callable[..., Page]


def test_runs_of_two_homes_with_one_name_are_listed_opened_and_compared(tmp_path: Path, open_page: Open) -> None:
    make_run(tmp_path / "own", "same", 20)
    other = make_run(tmp_path / "other", "same", 40)
    with served((Root(tmp_path / "own"), Root(tmp_path / "other", "big box", writable=False))) as one:
        page = open_page(one.address + "/")
        page.locator('.ag-row[row-id="big box/same"] input[type=checkbox]').click()
        expect(page.get_by_role("button", name="Compare 1")).to_be_enabled()
        expect(page.get_by_role("button", name="Archive")).to_be_disabled()  # this home is only read
        page.evaluate("() => dash_clientside.set_props('archive', {disabled: false})")
        page.get_by_role("button", name="Archive").click()
        expect(page.get_by_text("the home 'big box' is only read")).to_be_visible()
        assert not (other / files.NOTES).exists()
        page.locator('.ag-row[row-id="big box/same"] input[type=checkbox]').click()
        page.locator('.ag-row[row-id="same"] input[type=checkbox]').click()
        page.get_by_role("button", name="Archive").click()
        wait_until(lambda: read_notes(tmp_path / "own" / "same").archived)
        page.goto(f"{one.address}/?archived=1&run=same&run=big+box/same")
        page.get_by_role("button", name="Compare 2").click()
        drawn(page, 2)
        assert set(parse_qs(urlsplit(page.url).query)["run"]) == {"same", "big box/same"}
        page.locator(".chip-link[aria-label='Open big box/same']").click()
        expect(page.get_by_role("heading", name="big box/same")).to_be_visible()
        drawn(page, 2)
        assert urlsplit(page.url).path == "/run/big%20box/same"
        page.reload()
        expect(page.locator("#run-progress")).to_contain_text("40 / 40")
