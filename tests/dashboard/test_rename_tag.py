"""A tag is renamed in all runs that can be changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dash import Dash

from darkit.dashboard.pages import notes as page
from darkit.dashboard.pages.undo import Undos
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.runs.notes import Notes, read_notes, write_notes
from darkit.runs.roots import Root
from tests.dashboard.parts import make_run


def renaming(library: Library) -> Callable[..., Any]:
    """Return the callback of the button."""
    app = Dash("darkit")
    page.add_callbacks(app, library, Undos())
    (found,) = (one for one in app.callback_map.values() if any(part["id"] == "tag-rename" for part in one["inputs"]))
    function: Callable[..., Any] = found["callback"].__wrapped__
    return function


def test_a_run_of_a_home_that_is_only_read_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / root, name, 3, started=float(started))
        for root, name, started in (("own", "old", 10), ("other", "middle", 20), ("own", "new", 30))
    ]
    for folder in folders:
        write_notes(folder, Notes(("draft",)))
    library = Library((Root(tmp_path / "own"), Root(tmp_path / "other", "box", writable=False)), LogCache())
    fields = (["mine", "draft"], {"tags": ["draft"], "notes": {"old": "x"}}, ["draft", "some"], None)
    (said,), known, *rest = renaming(library)(1, "draft", " final  one ", *fields, "en")
    assert (said["color"], known) == ("teal", ["draft", "final one"])
    shown = {"tags": ["final one"], "notes": {"old": "x"}}
    assert rest == [None, "", ["mine", "final one"], shown, ["final one", "some"], []]
    assert [read_notes(folder).tags for folder in folders] == [("final one",), ("draft",), ("final one",)]
