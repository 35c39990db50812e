"""Which runs belong to a group, and which value of each counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkit.errors import ConfigError, ObjectiveMissingError, RunNotFoundError
from darkit.runs import files
from darkit.runs.groups import find_groups, mode_of, read_group, seed_of
from darkit.runs.run import Run
from tests.runs.experiments import make_run


@pytest.fixture
def root(home: Path) -> Path:
    where = home / "base"
    for seed in range(3):
        make_run(where, f"small-seed={seed}", [1.0, 0.5 + seed / 10, 0.9], seed=seed)
        make_run(where, f"large-seed={seed}", [1.0, 0.3], seed=seed, lr=3e-4, project="p")
    make_run(where, "alone", [2.0], seed=9, optimizer="sgd")
    return where


def names(groups: dict[str, list[Run]]) -> dict[str, list[str]]:
    return {label: sorted(run.name for run in runs) for label, runs in groups.items()}


SMALL = ["small-seed=0", "small-seed=1", "small-seed=2"]
LARGE = ["large-seed=0", "large-seed=1", "large-seed=2"]


@pytest.mark.parametrize("word", ["small", "small-*", "small-seed=1", "small-seed=0,small-seed=2,small-seed=1"])
def test_a_group_is_named_by_its_seeds_a_pattern_a_run_like_the_others_or_a_list(root: Path, word: str) -> None:
    assert names(find_groups([word, "large"])) == {word: SMALL, "large": LARGE}


def test_without_words_all_runs_that_differ_in_the_seed_alone_are_groups(root: Path) -> None:
    assert names(find_groups([])) == {"large": LARGE, "small": SMALL}
    assert names(find_groups([], "p")) == {"large": LARGE}
    (root / "small-seed=1" / files.MODEL_CONFIG).write_text('{"width": 65}')
    info = (root / "small-seed=2" / files.RUN).read_text()
    (root / "small-seed=2" / files.RUN).write_text(info.replace('"samples": 8', '"samples": 9'))
    assert names(find_groups([])) == {"large": LARGE}


def test_wrong_groups_are_refused_in_a_sentence(root: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"'smal' is neither a run, a group nor a pattern .*mean 'small'\?"):
        find_groups(["smal"])
    with pytest.raises(RunNotFoundError, match="There is no run 'nope'"):
        find_groups(["alone,nope"])
    with pytest.raises(RunNotFoundError, match="'small' is neither"):
        find_groups(["small"], "p")
    with pytest.raises(ConfigError, match="belongs to 'small' and to 'small-seed=0'"):
        find_groups(["small", "small-seed=0"])
    with pytest.raises(ConfigError, match="differ in the seed alone"):
        find_groups([], "no-project")


def test_the_value_of_a_run_is_its_best_its_last_or_that_of_a_step(root: Path) -> None:
    runs = find_groups(["small"])["small"]
    best = read_group("small", runs, "val_loss")
    assert [(member.name, member.seed, member.value) for member in best.members] == [
        ("small-seed=0", 0, 0.5),
        ("small-seed=1", 1, 0.6),
        ("small-seed=2", 2, 0.7),
    ]
    assert {member.value for member in read_group("small", runs, "val_loss", "last").members} == {0.9}
    assert {member.value for member in read_group("small", runs, "val_loss", "1").members} == {1.0}
    assert {member.value for member in read_group("small", runs, "lr", "last").members} == {3.0}
    assert mode_of(runs, "val_loss") == "min"
    with pytest.raises(ConfigError, match="small or a large 'lr' is better"):
        read_group("small", runs, "lr")
    with pytest.raises(ConfigError, match="--at must be best, last or a step, not 'first'"):
        read_group("small", runs, "val_loss", "first")
    with pytest.raises(
        ObjectiveMissingError, match=r"No run of 'small' counts: it has no finite val_los\. Did you mean"
    ):
        read_group("small", runs, "val_los")


def test_runs_that_are_not_finished_or_have_no_value_are_left_out_with_the_reason(root: Path) -> None:
    files.write_json(root / "small-seed=0" / files.STATUS, {"state": "stopped", "step": 3})
    (root / "small-seed=1" / files.LOG).write_text("step,val_loss\n1,nan\n2,inf\n")
    group = read_group("small", find_groups(["small"])["small"], "val_loss")
    assert [member.name for member in group.members] == ["small-seed=2"]
    assert group.left_out == {"small-seed=0": "it is stopped", "small-seed=1": "it has no finite val_loss"}


def test_a_run_that_diverged_has_no_best_value_and_a_value_of_each_step(root: Path) -> None:
    files.write_json(root / "small-seed=0" / files.STATUS, {"state": "finished", "step": 3, "diverged": 3})
    (root / "small-seed=1" / files.LOG).write_text("step,val_loss\n1,0.3\n2,nan\n")
    runs = find_groups(["small"])["small"]
    group = read_group("small", runs, "val_loss")
    assert [member.name for member in group.members] == ["small-seed=2"]
    assert group.left_out == dict.fromkeys(("small-seed=0", "small-seed=1"), "it diverged and has no best value")
    assert len(read_group("small", runs, "val_loss", "1").members) == 3


def test_a_repetition_of_a_seed_counts_once(root: Path) -> None:
    make_run(root, "earlier", [1.0, 0.5, 0.9], seed=0)
    make_run(root, "other-settings", [1.0, 0.5, 0.9], seed=0, lr=3.0)
    make_run(root, "other-value", [1.0, 0.55, 0.9], seed=0)
    group = read_group("small", find_groups(["small-seed=0"])["small-seed=0"], "val_loss")
    assert [member.name for member in group.members] == ["earlier", "other-value", "small-seed=1", "small-seed=2"]
    assert group.left_out == {"small-seed=0": "it repeats earlier, with the same settings, seed and value"}
    group = read_group("all", find_groups(["*-se*"])["*-se*"], "val_loss")
    assert {"other-settings", "small-seed=0"} <= {member.name for member in group.members}


def test_a_log_whose_steps_are_damaged_has_no_value_at_a_step(root: Path) -> None:
    (root / "small-seed=1" / files.LOG).write_text("step,val_loss\n1,1.0\n2x,0.5\n")
    runs = find_groups(["small"])["small"]
    group = read_group("small", runs, "val_loss", "1")
    assert [member.name for member in group.members] == ["small-seed=0", "small-seed=2"]
    assert group.left_out == {"small-seed=1": "it has no finite val_loss at step 1"}


def test_the_seed_of_a_run_with_its_own_loop_is_that_of_its_config(root: Path) -> None:
    folder = root / "alone"
    files.write_json(folder / files.RUN, {"id": "x", "made_by": "start_run"})
    (folder / files.TRAINER_CONFIG).unlink()
    assert seed_of(Run(folder)) is None
    files.write_json(folder / files.MODEL_CONFIG, {"seed": 4, "lr": 1})
    assert seed_of(Run(folder)) == 4
    other = make_run(root, "own", [1.0])
    files.write_json(other / files.RUN, {"id": "y", "made_by": "start_run"})
    (other / files.TRAINER_CONFIG).unlink()
    files.write_json(other / files.MODEL_CONFIG, {"seed": 5, "lr": 1})
    assert names(find_groups(["alone"])) == {"alone": ["alone", "own"]}
