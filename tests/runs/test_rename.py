from __future__ import annotations

import json
from pathlib import Path

import pytest

from darkit.errors import NameInvalidError, RunExistsError, RunLockedError, RunNotFoundError
from darkit.runs import files
from darkit.runs.lock import RunLock
from darkit.runs.rename import rename_run


def make(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file in (files.RUN, files.TRAINER_CONFIG):
        files.write_json(folder / file, {"name": name, "other": 1})
    return folder


def test_the_folder_and_the_files_that_repeat_its_name_change(home: Path) -> None:
    root = home / "base"
    make(root, "old")
    moved = rename_run(root, "old", "new")
    assert moved == root / "new"
    assert not (root / "old").exists()
    for file in (files.RUN, files.TRAINER_CONFIG):
        assert json.loads((moved / file).read_text()) == {"name": "new", "other": 1}


def test_a_name_that_is_taken_even_by_an_empty_folder_stays_as_it_is(home: Path) -> None:
    root = home / "base"
    make(root, "old")
    (root / "starting").mkdir()  # a run that is being created
    with pytest.raises(RunExistsError):
        rename_run(root, "old", "starting")
    assert list((root / "starting").iterdir()) == []
    assert (root / "old" / files.RUN).is_file()


def test_a_rename_never_replaces_the_folder_that_appears_meanwhile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home / "base"
    make(root, "old")
    monkeypatch.setattr("darkit.runs.rename.refuse_existing", lambda root, name: (root / name).mkdir())
    with pytest.raises(RunExistsError):
        rename_run(root, "old", "new")
    assert (root / "old" / files.RUN).is_file()


def test_a_running_a_missing_and_a_wrongly_named_run_are_refused(home: Path) -> None:
    root = home / "base"
    lock = RunLock(make(root, "old"))
    with pytest.raises(RunLockedError):
        rename_run(root, "old", "new")
    lock.release()
    with pytest.raises(RunNotFoundError):
        rename_run(root, "other", "new")
    for wrong in ("..", "a/b", "", ".hidden"):
        with pytest.raises(NameInvalidError):
            rename_run(root, "old", wrong)
    assert [path.name for path in root.iterdir()] == ["old"]


def test_a_run_whose_files_are_broken_is_renamed_all_the_same(home: Path) -> None:
    folder = make(home / "base", "old")
    (folder / files.RUN).write_text("{")
    assert (rename_run(home / "base", "old", "new") / files.RUN).read_text() == "{"
