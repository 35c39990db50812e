"""What ``darkit train`` refuses: one sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from darkit.cli.main import main
from darkit.runs import base, load
from tests.cli.parts import MODEL, NUMBERS, done, names, refused, write


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


WRONG = [
    (
        ("trainer.max_stepz=10",),
        r"Unknown setting 'trainer\.max_stepz'\. Did you mean 'max_step'\? Available: max_step, .*\.",
    ),
    (("max_step=10",), r"Unknown setting 'max_step'\. Did you mean 'trainer\.max_step'\?"),
    (("modl=gpt",), r"Unknown setting 'modl'\. Did you mean 'model'\? Available: model, .*"),
    (("model.config.num_head=5",), r"Unknown setting 'model\.config\.num_head'\. Did you mean 'num_heads'\? .*"),
    (("model=mymodel", "model.width=3"), r"Unknown setting 'model\.width'\. .*list, write \+model\.width=VALUE\."),
    (
        ("model=nope",),
        r"Unknown model 'nope'\. Available: csnn, gpt, lstm, mlp, mymodel, nirgraph, snn, spikebert and 2 more\.",
    ),
    (("+experiment=nope",), r"Unknown experiment 'nope'\. Available: quick\."),
    (("optimizer=lion",), r"Unknown optimizer 'lion'\. Available: adam, adamw, sgd\."),
    (("trainer.optimizer=lion",), r"Unknown optimizer 'lion' in torch\.optim\. .*"),
    (("trainer.max_step=abc",), r"The setting trainer\.max_step does not fit: Value 'abc' .*\."),
    (("trainer.max_step=1.5",), r"The setting trainer\.max_step does not fit: Value '1\.5' .*\."),
    (("trainer.betas=3",), r"The setting trainer\.betas does not fit: .*[^.]\."),
    (("trainer.betas=[0.9]",), r"betas must be two numbers, not \[0\.9\]\."),
    (("trainer.max_step=-1",), r"max_step must be at least 1, not -1\."),
    (("trainer.lr=nan",), r"lr must be finite, not nan\."),
    (("trainer.device=tpu",), r"device must be one of auto, cpu, cuda, mps, not 'tpu'\."),
    (("foo",), r"'foo' is not a setting: write it as key=value\."),
    (("trainer.max_step=[1",), r"The value of trainer\.max_step cannot be read: .*"),
    (("data.seed=模",), r"The value of data\.seed must be in quotes because of its characters: \"data\.seed='模'\"\."),
    (
        ("data=regression",),
        r"The setting model\.config\.vocab_size takes the value of data\.vocab_size, which is not there.*",
    ),
    (("model=mymodel", "data=text"), r"The setting model\.config\.input_size takes the value of data\.input_size, .*"),
    (("model=mymodel", "loss=3"), r"The config of loss needs a _target_, .*"),
    (("model=mymodel", "loss=nope"), r"Unknown loss 'nope': .*has no attribute 'nope'"),
    (
        ("model=mymodel", "model._target_=builtins.dict"),
        r"The model builtins\.dict is a dict, not a torch\.nn\.Module\.",
    ),
    (("model=mymodel", "model._target_=nope.X"), r"The model nope\.X cannot be created: No module named 'nope'"),
    (
        ("model.config.num_heads=5",),
        r"The model darkit\.models\.gpt\.GPT cannot be created: hidden_size \(192\) must .*\.",
    ),
    (("model.config.num_layers=x",), r"The model darkit\.models\.gpt\.GPT cannot be created: num_layers must be .*"),
    (("model=mymodel", "data.samples=0"), r"samples must be at least 1, not 0\."),
    (("data.vocab_size=10",), r"vocab_size must be at least 257 .*, not 10\."),
    (("data.val_fraction=2",), r"val_fraction must be above 0 and below 1, not 2\."),
    (("data.context_length=100000000",), r"\d+ tokens are too few for one window of 100000000 tokens and its target\."),
    (("name=a/b",), r"The run name 'a/b' holds a character .*"),
    (("name=..",), r"The run name '\.\.' starts with a dot; .*"),
    (("name=/abs",), r"The run name '/abs' holds a character .*"),
    (("name=a\\",), r"The run name 'a\\+' holds a character .*"),
    (("name=",), r"The run name '' is empty; .*"),
    ((f"name={'x' * 101}",), r"The run name 'x+\.\.\.' has 101 characters; .*"),
    (("resume=true",), r"resume=true resumes the run called name=, but no name was given: write resume=NAME\."),
    (("resume=nope",), r"There is no run 'nope' in .*\. Available: none\."),
    (("resume=true", "name=nope"), r"There is no run 'nope' in .*\. Available: none\."),
    (("resume=../x",), r"The run name '\.\./x' holds a character .*"),
]


@pytest.mark.parametrize(
    ("words", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    sentence = refused(capsys, "train", "trainer.max_step=2", *words)
    assert re.fullmatch(said, sentence), sentence
    left = [path.name for path in home.rglob("*")]
    assert {*left} <= {"base", "seal.key"}  # the root, and the key of the home


def test_a_name_that_is_taken_is_refused_before_the_data_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    done(capsys, *NUMBERS, "name=x")
    before = {path: path.stat().st_mtime_ns for path in (home / "base" / "x").rglob("*")}
    assert refused(capsys, *NUMBERS, "name=x", "data.samples=0").startswith("A run 'x' already exists in ")
    (home / "base" / "link").symlink_to(home / "base" / "x")
    assert "symbolic link" in refused(capsys, *NUMBERS, "name=link")
    assert {path: path.stat().st_mtime_ns for path in (home / "base" / "x").rglob("*")} == before


def test_a_run_that_is_at_its_end_is_not_trained_again(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x")
    assert "at step 4 already" in refused(capsys, "train", "resume=x")
    assert "iter-9-ckpt" in refused(capsys, "train", "resume=x:iter-9-ckpt", "trainer.max_step=9")
    assert load("x").status == "finished"


def test_what_a_run_was_begun_with_must_be_readable(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x")
    (load("x").path / "config.yaml").write_text("overrides: [")
    said = refused(capsys, "train", "resume=x", "trainer.max_step=9")
    assert said.startswith("Cannot read the config of run ")


def test_a_checkpoint_of_another_model_is_refused_with_both_names(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x")
    said = refused(capsys, "train", "resume=x", "name=y", "model.config.hidden_size=5", "trainer.max_step=9")
    assert "MyModel" in said
    assert names(load("x").path.parent) == {"x"}


@pytest.mark.parametrize("sweep", [(), ("-m", "trainer.lr=1e-3,1e-4")])
def test_a_home_that_cannot_be_written_to_is_one_sentence(
    sweep: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path / "file" / "home"))
    assert "Not a directory" in refused(capsys, *NUMBERS, "name=x", *sweep)


def test_a_loss_that_explodes_stops_the_run_and_names_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("name=x", "trainer.lr=1e30", "trainer.gradient_clip=0", "trainer.warmup_step=0", "optimizer=sgd")
    assert re.match(r"The loss .* step \d", refused(capsys, *NUMBERS, *words))
    assert load("x").status == "crashed"


def test_a_device_that_is_not_there_is_a_warning_and_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*NUMBERS, "name=x", "trainer.device=mps"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")]
    assert line.startswith("Warning: Device 'mps' is not available; using the CPU")
    assert load("x").trainer_config["device"] == "cpu"


def test_what_the_users_code_raises_says_where(folder: Path, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    write(
        folder / "theirs_broken.py", MODEL + "class Broken(Model):\n    def __init__(self):\n        self.nothing()\n"
    )
    write(folder / "configs/model/theirs.yaml", "_target_: theirs_broken.Broken\n")
    said = refused(capsys, "train", "model=theirs", "data=regression")
    assert said.startswith(
        "The model theirs_broken.Broken cannot be created: AttributeError: 'Broken' object has no attribute"
    )
    assert said.endswith("(theirs_broken.py, line 7)")
    write(folder / "theirs_unreadable.py", "import torch\n\nraise RuntimeError('not today')\n")
    write(folder / "configs/model/theirs.yaml", "_target_: theirs_unreadable.Model\n")
    said = refused(capsys, "train", "model=theirs", "data=regression")
    assert said.endswith("cannot be created: RuntimeError: not today (theirs_unreadable.py, line 3)")
    assert not home.exists()


def test_a_bug_that_no_sentence_can_explain_is_a_traceback_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """class Data(list):
    def __getitem__(self, index):
        return 1 / 0 if index > 3 else super().__getitem__(index)
def make():
    import torch
    return Data([(torch.ones(12), torch.ones(12))] * 9)
"""
    write(folder / "theirs_bug.py", code)
    write(folder / "configs/data/theirs.yaml", "_target_: theirs_bug.make\n")
    words = ("train", "model=mymodel", "data=theirs", "model.config.input_size=12", "model.config.output_size=12")
    assert main([*words, "loss=mse_loss", "name=x", "trainer.batch_size=1"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert "Error executing job" not in err
    assert not (base() / "x").exists()
