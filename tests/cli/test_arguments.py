"""The words of ``darkit train`` before Hydra sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from darkit.cli.arguments import is_sweep, prepare, sweeps_names
from darkit.errors import ConfigError
from darkit.runs import load
from tests.cli.parts import NUMBERS, done


def test_flags_come_first_and_settings_keep_their_order() -> None:
    assert prepare(["a=1", "-m", "b=2,3", "~c", "--cfg", "job", "+d=4"]) == [
        "-m",
        "--cfg",
        "job",
        "a=1",
        "b=2,3",
        "~c",
        "+d=4",
    ]
    assert prepare(["--config-dir=/x", "a=1"]) == ["--config-dir=/x", "a=1"]
    assert prepare(["word", "a=1"]) == ["word", "a=1"], "which Hydra refuses"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$"), min_size=1, max_size=30))
def test_hydra_reads_a_name_as_it_was_written(name: str) -> None:
    if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"":
        return  # it is quoted already
    (word,) = prepare([f"name={name}"])
    parsed = OverridesParser.create().parse_override(word)
    assert parsed.key_or_group == "name"
    expected = None if name.lower() == "null" else name
    assert parsed.value() == expected


def test_what_is_quoted_or_means_something_else_stays() -> None:
    words = ["name='a b'", 'name="x"', "name=null", "name=", "name=${now:%H}", "resume=null", "resume=false"]
    for word in words:
        assert prepare([word]) == [word]


def test_only_a_sweep_reads_several_names() -> None:
    assert prepare(["name=a,b"]) == ["name='a,b'"]
    assert prepare(["-m", "name=a,b"]) == ["-m", "name=a,b"]
    assert prepare(["-m", "name=choice(a,b)", "lr=1,2"]) == ["-m", "name=choice(a,b)", "lr=1,2"]
    assert prepare(["-m", "name=a"]) == ["-m", "name='a'"]


def test_a_sweep_is_known_by_its_flag_and_one_over_names_by_their_number() -> None:
    assert is_sweep(["a=1", "-m"])
    assert is_sweep(["--multirun"])
    assert not is_sweep(["a=-m"])
    assert sweeps_names(["-m", "name=a,b", "lr=1"])
    assert not sweeps_names(["-m", "name='a,b'", "lr=1,2"])
    assert not sweeps_names(["-m", "lr=1,2"])


def test_a_trainer_setting_under_another_librarys_name_becomes_darkits() -> None:
    words = [
        "trainer.max_steps=3",
        "+trainer.learning_rate=1e-3",
        "trainer.lr=1e-3",
        "model.max_steps=4",
        "max_steps=5",
    ]
    assert prepare(words) == [
        "trainer.max_step=3",
        "+trainer.lr=1e-3",
        "trainer.lr=1e-3",
        "model.max_steps=4",
        "max_steps=5",
    ]
    assert prepare(["-m", "trainer.learning_rate=1,2"]) == ["-m", "trainer.lr=1,2"]


def test_one_trainer_setting_under_two_names_with_different_values_is_refused() -> None:
    for words in (["trainer.max_steps=3", "trainer.max_step=4"], ["trainer.grad_clip=1", "trainer.max_grad_norm=2"]):
        with pytest.raises(ConfigError, match="are the same setting"):
            prepare(words)


def test_a_fork_takes_its_parents_settings_but_not_what_names_the_parent(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*NUMBERS, "trainer.save_step_interval=1", "trainer.log_step_interval=1", "resume_overrides=true")
    done(capsys, *words, "name=parent", "project=old")
    assert prepare(["fork=parent:iter-2", "trainer.lr=3e-4"]) == [
        *(word for word in words[1:] if not word.startswith("resume_")),
        "fork='parent:iter-2'",
        "trainer.lr=3e-4",
    ]
    done(capsys, "train", "fork=parent:iter-2", "trainer.lr=3e-4", "name=child", "resume=auto")
    child = load("child")
    assert child.fork["parent"] == "parent"
    assert child.fork["changes"] == {"lr": [0.002, 0.0003]}
    assert child.log()["step"].to_list() == [3, 4]
    done(capsys, "rm", "parent")
    assert prepare(["fork=parent:iter-2", "name=child", "resume=auto"])[:-3] == prepare(["resume=child"])[:-1]
    done(capsys, "train", "resume=child", "trainer.max_step=6")
    assert load("child").log()["step"].to_list() == [3, 4, 5, 6]
    assert load("child").fork == child.fork


def test_a_resumed_run_is_forked_and_resumed_with_the_settings_that_it_had_at_the_step(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done(capsys, *NUMBERS, "trainer.save_step_interval=2", "name=p")
    done(capsys, "train", "resume=p", "trainer.max_step=8", "trainer.optimizer=sgd", "resume_overrides=true")

    def words(*given: str) -> set[str]:
        found = prepare(given)
        return {word for word in found if word.startswith(("trainer.max_step", "trainer.optimizer", "resume_over"))}

    later = {"trainer.max_step=8", "trainer.optimizer=sgd"}
    assert words("fork=p:iter-6") == words("fork=p") == words("resume=p") == later
    assert words("fork=p:iter-4") == words("resume=p:iter-2") == {"trainer.max_step=4"}
    done(capsys, "train", "fork=p:iter-6", "name=child")
    assert load("child").fork["changes"] == {}
    assert load("child").log()["step"].to_list()[-1] == 8
    path = load("p").path / "run.json"
    info = json.loads(path.read_text())
    info["continued"][-1]["overrides"].append("model=$(theirs)")
    path.write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="not trusted in a run directory of another darkit home"):
        prepare(["fork=p:iter-6"])
    info["continued"] = ["no", {"after_step": "4", "overrides": ["a=1"]}, {"after_step": 4, "overrides": "a=1"}]
    path.write_text(json.dumps(info))
    assert words("fork=p:iter-6") == {"trainer.max_step=4"}
