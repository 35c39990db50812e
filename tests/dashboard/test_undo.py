"""What was done to several runs, of which one may fail, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.pages.undo import UndoneError, Undos
from darkit.errors import RunExistsError
from darkit.runs.notes import read_notes, set_project
from darkit.runs.trash import list_trash, move_to_trash, restore
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run

Open = Callable[..., Page]


def names_in(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.iterdir())


def test_one_run_that_cannot_be_brought_back_does_not_keep_the_others_away(home: Path) -> None:
    root, undos = home / "base", Undos()
    names = ["a", "b", "c"]
    for name in names:
        make_run(root, name, 3)
        move_to_trash(root, name)
    make_run(root, "b", 3)
    token = undos.add([lambda name=name: restore(root, name) for name in names])  # type: ignore[misc]
    with pytest.raises(RunExistsError, match="'b' already exists"):
        undos.undo(token)
    assert sorted(folder.name for folder in root.iterdir()) == names
    move_to_trash(root, "b")
    assert undos.undo(token) == 1, "what failed can be tried again, and only that"
    with pytest.raises(UndoneError):
        undos.undo(token)


def test_a_deletion_says_which_run_is_left_and_undo_brings_the_others_back(dashboard: Served, open_page: Open) -> None:
    for name in "abc":
        make_run(dashboard.root, name, 20, state="running" if name == "b" else "finished")
    page = open_page(dashboard.address + "/?col=name&side=0&run=a&run=b&run=c")
    page.locator("#delete").click()
    page.locator("#delete-name").fill("3")
    page.locator("#delete-now").click()
    expect(page.get_by_text("2 of 3 done. b: The run 'b' is being trained")).to_be_visible()
    expect(page.locator("#run-count")).to_have_text("1")
    expect(page.locator("#selected-count")).to_have_text("1 selected (all matching)")
    assert names_in(dashboard.root) == ["b"]
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone for 2 runs.")).to_be_visible()
    expect(page.locator("#run-count")).to_have_text("3")
    assert names_in(dashboard.root) == ["a", "b", "c"]
    assert list_trash(dashboard.root) == []


def test_a_new_name_and_a_new_project_are_undone(dashboard: Served, open_page: Open) -> None:
    make_run(dashboard.root, "old", 20)
    set_project(make_run(dashboard.root, "other", 20), "language")
    page = open_page(dashboard.address + "/?col=name&col=project&side=0&run=old")
    page.locator("#more summary").click()
    page.locator("#move").click()
    page.locator("#move-project").fill("vision")
    page.locator("#move-project").press("Tab")
    page.locator("#move-now").click()
    cell = page.locator('.ag-row[row-id="old"] .ag-cell[col-id="project"]')
    expect(cell).to_have_text("vision")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone for 1 runs.")).to_be_visible()
    expect(cell).to_have_text("")
    assert not read_notes(dashboard.root / "old").project
    page.locator("#more summary").click()
    page.locator("#rename").click()
    page.locator("#rename-name").fill("new")
    page.locator("#rename-now").click()
    expect(page.locator('.ag-row[row-id="new"]').first).to_be_visible()
    page.get_by_role("button", name="Undo").last.click()
    expect(page.locator('.ag-row[row-id="old"]').first).to_be_visible()
    assert names_in(dashboard.root) == ["old", "other"]
