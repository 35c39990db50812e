"""The folder of a sweep: its definition, its lock and its tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from darkit.errors import NameInvalidError, StorageError, SweepError
from darkit.sweep.folder import DEFINITION, Definition, SweepFolder, list_sweeps
from darkit.sweep.settings import SweepSettings
from darkit.sweep.space import split_space

WHAT = Definition(
    name="s",
    words=("model=mlp", "data.path='a b'"),
    space=tuple(split_space(["lr=interval(1e-4,1e-1,log)", "o=a,b"])[1]),
    settings=SweepSettings(trials=5),
    seeds=(0, 1),
    facts={"direction": "min", "objective": "val_loss", "max_step": 10, "interval": 2},
)


def test_a_definition_is_read_back_and_only_as_this_home_wrote_it(home: Path) -> None:
    folder = SweepFolder("s")
    assert not folder.exists
    with folder.locked():
        folder.write(WHAT)
    assert folder.read() == WHAT
    assert list_sweeps() == ["s"]
    path = home / "sweeps" / "s" / DEFINITION
    content = json.loads(path.read_text())
    content["definition"]["words"][0] = "model._target_=os.system"
    path.write_text(json.dumps(content))
    with pytest.raises(SweepError, match="was not recorded by this darkit home"):
        folder.read()
    path.write_text("{")
    with pytest.raises(SweepError, match="is damaged"):
        folder.read()


def test_what_makes_another_sweep(home: Path) -> None:
    same = replace(WHAT, settings=replace(WHAT.settings, trials=9, jobs=4), facts={})
    assert same.differs_from(WHAT) == ""
    other = replace(WHAT, settings=replace(WHAT.settings, sampler="random"), seeds=(0,), words=())
    assert WHAT.differs_from(other) == "sweep.sampler, words, seeds"
    elsewhere = replace(WHAT, facts={**WHAT.facts, "max_step": 20})
    assert WHAT.differs_from(elsewhere) == "max_step", "the same words, but another config file"


def test_an_error_removes_a_new_sweep_without_runs_and_no_other(home: Path) -> None:
    folder = SweepFolder("s")

    def fail(*questions: Callable[[], bool]) -> None:
        with pytest.raises(StorageError), folder.locked(), folder.removed_if_unused() as begun:
            begun.extend(questions)
            if not folder.exists:
                folder.write(WHAT)
            raise StorageError("The disk is full.")

    fail()
    assert not folder.path.exists()
    fail(lambda: True)
    assert folder.exists, "a run has begun"
    fail(lambda: False)
    assert folder.exists, "its runs are not there, but it is not new"


def test_a_sweep_has_one_process(home: Path) -> None:
    with SweepFolder("s").locked(), pytest.raises(SweepError, match="'s' is running already"):  # noqa: SIM117
        with SweepFolder("s").locked():
            pass
    with SweepFolder("s").locked():
        pass


def test_a_sweep_that_does_not_exist_names_those_that_do(home: Path) -> None:
    SweepFolder("first").path.mkdir(parents=True)
    SweepFolder("first").write(replace(WHAT, name="first"))
    with pytest.raises(SweepError, match=r"There is no sweep 'frist' in .*Did you mean 'first'"):
        SweepFolder("frist").read()
    with pytest.raises(NameInvalidError):
        SweepFolder("../x")
