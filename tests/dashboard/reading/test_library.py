"""All runs of a home as the server knows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library, config_keys, differing_keys
from darkit.dashboard.reading.rows import summary
from darkit.dashboard.server.api import table_rows
from darkit.errors import ConfigError, RunNotFoundError
from darkit.runs import files, status
from darkit.runs.roots import Root
from tests.dashboard.parts import make_run


@pytest.fixture
def library(home: Path) -> Library:
    return Library(home / "base", LogCache())


def test_a_run_on_another_host_that_is_not_heard_of_has_crashed_until_it_beats_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(library.root, "far", 20, state="running", host="far-away")
    assert library.facts("far").state == "running"
    monkeypatch.setattr(status, "SILENCE", 0.0)
    facts = library.facts("far")
    assert (facts.state, facts.status.reason[:23]) == ("crashed", "The process on far-away")
    values = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**values, "heartbeat": values["heartbeat"] + 5})
    assert library.facts("far").state == "running"


def test_a_config_key_is_a_number_only_if_it_is_one_in_every_run_that_has_it(library: Library) -> None:
    configs = {"a": {"n": 1, "mixed": 1, "flag": True, "none": None}, "b": {"n": 2.5, "mixed": "x", "none": 3}}
    for name, config in configs.items():
        make_run(library.root, name, 5, config=config)
    found = config_keys(library.facts(name).config_values() for name in configs)
    assert {key: found[f"model.{key}"] for key in ("n", "mixed", "flag", "none")} == {
        "n": True,
        "mixed": False,
        "flag": False,
        "none": True,
    }
    assert list(found) == sorted(found)


def test_the_rate_of_a_resumed_run_leaves_out_the_pause(library: Library) -> None:
    header, rows = "step,time,train_loss", [(1, 1000.0), (2, 1000.5), (3, 9000.0), (4, 9000.25), (5, 9000.5)]
    folder = make_run(library.root, "resumed", 5, started=8999.0, heartbeat=9001.0)
    (folder / files.LOG).write_text("\n".join([header, *(f"{step},{clock},1" for step, clock in rows)]) + "\n")
    assert _rate(library) == 4.0
    make_run(library.root, "once", 5, started=9000.4)  # one row since the resume tells nothing
    (library.root / "once" / files.LOG).write_text((folder / files.LOG).read_text())
    assert _rate(library, "once") is None


def test_runs_of_several_homes_are_one_list_with_unique_addresses(tmp_path: Path) -> None:
    for folder, names in {"own": ("same", "mine"), "other": ("same",)}.items():
        for name in names:
            make_run(tmp_path / folder, name, 5)
    roots = (Root(tmp_path / "own"), Root(tmp_path / "other", "box", writable=False), Root(tmp_path / "none", "gone"))
    library = Library(roots, LogCache())
    assert {entry.row["name"] for entry in library.entries()[1]} == {"same", "mine", "box/same"}
    assert library.facts("box/same").folder == tmp_path / "other" / "same"
    assert library.facts("box/same").name == "box/same"
    assert library.writable_folder("same") == tmp_path / "own" / "same"
    with pytest.raises(ConfigError, match="only read"):
        library.writable_folder("box/same")
    with pytest.raises(RunNotFoundError, match=r"No home is labelled 'bo'\. Did you mean 'box'"):
        library.facts("bo/same")


def test_the_last_rows_of_another_home_stay_while_it_cannot_be_read(tmp_path: Path) -> None:
    for folder in ("own", "other"):
        make_run(tmp_path / folder, "one", 5)
    library = Library((Root(tmp_path / "own"), Root(tmp_path / "other", "box", writable=False)), LogCache())
    rows = [entry.row for entry in library.entries()[1]]
    for folder in ("own", "other"):
        (tmp_path / folder).rename(tmp_path / f"{folder}-away")
    library._looked = -1.0
    left = [entry.row for entry in library.entries()[1]]
    assert left == [row for row in rows if row["name"] == "box/one"]
    (tmp_path / "other").mkdir()
    library._looked = -1.0
    assert library.entries()[1] == []


def _rate(library: Library, name: str = "resumed") -> float | None:
    return summary(library.facts(name), LogCache().read_many([library.root / name / files.LOG])[0])[0]["rate"]


def test_the_group_of_a_run_is_in_its_row(library: Library) -> None:
    for name, group in (("alone", None), ("one", "sweep"), ("odd", ["x"])):
        folder = make_run(library.root, name, 5)
        info = files.read_json(folder / files.RUN)
        files.write_json(folder / files.RUN, info if group is None else info | {"group": group})
    _, entries = library.entries()
    assert {entry.row["name"]: entry.row["group"] for entry in entries} == {"alone": "", "one": "sweep", "odd": ""}


def test_keys_by_which_runs_are_saved_and_placed_come_after_those_that_change_them_and_the_seed() -> None:
    placed = {key: (2, {1, 2}) for key in ("trainer.device_num", "trainer.max_step", "trainer.save_step_interval")}
    of_one = {"model.width": (1, {8}), "model.depth": (1, {2})}
    found = {**of_one, "trainer.seed": (2, {0, 1}), **placed, "trainer.lr": (2, {0.1, 0.2})}
    assert differing_keys(found, 2) == ["trainer.lr", *placed, "trainer.seed", *of_one]


def test_an_open_page_gets_everything_anew_from_a_server_that_was_started_again(library: Library) -> None:
    gone = make_run(library.root, "gone", 5)
    before = json.loads(table_rows(library, {"since": 0}))
    shutil.rmtree(gone)
    make_run(library.root, "new", 5)
    again = Library(library.root, LogCache())
    answer = json.loads(table_rows(again, {"since": before["version"]}))
    assert answer["names"] == ["new"]
    assert [row["name"] for row in answer["rows"]] == ["new"]


def test_a_query_that_is_too_long_is_said_to_be_and_the_rows_come_all_the_same(library: Library) -> None:
    make_run(library.root, "one", 5)
    answer = json.loads(table_rows(library, {"query": "x" * 1001}))
    assert "1000" in answer["problem"]["message"]
    assert len(answer["rows"]) == 1
