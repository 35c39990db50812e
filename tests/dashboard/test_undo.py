"""What was done to several runs is undone for each of them, also where one cannot be changed back."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkit.dashboard.pages.undo import UndoneError, Undos
from darkit.errors import RunExistsError
from darkit.runs.trash import move_to_trash, restore
from tests.dashboard.parts import make_run


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
