"""What a copied run's ``config.yaml`` asks for is chosen among what is here, or refused; nothing of it is built."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import polars
import pytest
import yaml  # type: ignore[import-untyped]

from darkit.cli.main import main
from darkit.errors import ConfigError
from darkit.runs import Run
from tests.cli.parts import MODEL, NUMBERS, done, refused, write

REFUSED = "which is not trusted in a run directory of another darkit home. If it is yours,"


class Bomb:
    """Makes a file when it is read back from a pickle."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that nothing may make; a pickle and a module here would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY_SECRET", "s3cret")
    canary = tmp_path / "canary"
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(canary)))
    (tmp_path / "planted.py").write_text(
        f"from pathlib import Path\nPath({str(canary)!r}).touch()\ndef make(**k): ...\n"
    )
    return canary


def plant(runs: Path, name: str, **changes: Any) -> None:
    path = runs / name / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


DATA: list[Any] = [
    {"_target_": "pandas.read_pickle", "filepath_or_buffer": "bomb.pkl"},
    {"_target_": "joblib.load", "filename": "bomb.pkl"},
    {"_target_": "pickle.load", "file": {"_target_": "builtins.open", "file": "bomb.pkl", "mode": "rb"}},
    {"_target_": "darkit.prediction.rebuild.build_config", "kind": "pydantic", "path": "subprocess.Popen"},
    {"_target_": "darkit.data.open_prepared", "folder": "x"},
    {"_target_": "darkit.data.regression.__globals__", "x": 1},
    {"_target_": "darkit.data", "x": 1},
    {"_target_": "planted.make"},
    {"_target_": ["darkit.data.regression"]},
    {"_target_": "${oc.decode:'planted.make'}"},
    {"_target_": "darkit.data.regression", "seed": {"_target_": "planted.make"}},
    {"_target_": "darkit.data.regression", "seed": [{"_target_": "planted.make"}]},
    {"_target_": "darkit.data.regression", "_args_": [1], "_partial_": True},
    {"_target_": "darkit.data.regression", "seed": "${oc.env:CANARY_SECRET}"},
    {"_target_": "darkit.data.regression", "seed": "${oc.decode:${oc.env:CANARY_SECRET}}"},
    {"_target_": "darkit.data.regression", "nonsense": 1},
    {"_target_": "darkit.data.regression", "noise": float("nan")},
    {"_target_": "darkit.data.text_files", "path": {"path": "json", "data_files": "x"}},
    {"_target_": "darkit.data.text_files", "path": "hf:owner/name"},
    {"_target_": "darkit.data.text_files", "path": ["texts", "owner/name"]},
]


@pytest.mark.parametrize("data", DATA, ids=str)
def test_eval_builds_nothing_but_darkits_own_data_with_plain_values(
    data: Any, runs: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(runs, "numbers", data=data)
    said = refused(capsys, "eval", "numbers")
    assert "The run 'numbers' was trained with data." in said
    assert f"{REFUSED} give the data: --data NAME KEY=VALUE." in said
    assert "s3cret" not in said
    assert not canary.exists()
    assert main(["eval", "numbers", "--data", "regression", "samples=8", "val_samples=8"]) == 0


OVERRIDES = [
    "loss={_target_:planted.make}",
    "loss=planted.make",
    "loss=subprocess.Popen",
    "loss=Tensor",
    "++loss={_target_: pandas.read_pickle, filepath_or_buffer: bomb.pkl}",
    "model._target_=planted.make",
    "+model.config.x={_target_: planted.make}",
    "+data.x=${oc.env:CANARY_SECRET}",
    "+data.x='${oc.decode:1}'",
    "data={_target_: planted.make}",
    "data=../../planted",
    "~model",
    "data@model=regression",
    "hydra.run.dir=elsewhere",
    "hydra/launcher=basic",
    "+hydra.callbacks.x={_target_: planted.make}",
    "trainer.lr=1e-3,1e-4",
    "--config-dir=elsewhere",
    "--info",
    "-m",
    "+planted=1",
    " model=mlp",
    "data.path=hf:owner/name",
    "data.tokenizer=owner",
    "trainer.device=\u001b[31mcpu",
]


@pytest.mark.parametrize("override", OVERRIDES)
def test_resume_repeats_nothing_of_a_run_that_could_run_code(
    override: str, runs: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(runs, "numbers", overrides=["model=mymodel", override])
    before = sorted(path.name for path in (runs / "numbers").iterdir())
    said = refused(capsys, "train", "resume=numbers", "trainer.max_step=6")
    assert said.startswith("The run 'numbers' was started with ")
    assert said.endswith(f"{REFUSED} repeat it on the command line.")
    assert "s3cret" not in said
    assert "\x1b" not in said
    assert not canary.exists()
    assert sorted(path.name for path in (runs / "numbers").iterdir()) == before
    assert not (runs.parent / "sweeps").exists()


def test_what_a_person_says_anew_is_done(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = yaml.safe_load((runs / "numbers/config.yaml").read_text())["overrides"]
    plant(runs, "numbers", overrides=[*overrides, "loss={_target_:planted.make}"])
    assert "finished at step 5" in done(capsys, "train", "resume=numbers", "trainer.max_step=5", "loss=mse_loss")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "it has references (YAML aliases)"),
        ("[" * 5000, "while increasing flow level"),
        ("a: " + "[" * 200 + "]" * 200, "its values are nested more than 100 deep"),
        ("a: !!python/object/apply:os.system ['touch canary']", "could not determine a constructor"),
        ("- 1\n", "it is not a mapping"),
        ("overrides: 3\ndata: 3\n", ""),
        ("\x00", "unacceptable character"),
        ("x" * (2**20 + 1), "it has 1048577 bytes, more than 1048576"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_config_is_one_sentence(
    text: str, said: str, runs: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "numbers/config.yaml").write_text(text)
    for words in (("eval", "numbers"), ("train", "resume=numbers", "trainer.max_step=6")):
        assert said in refused(capsys, *words)
    assert not canary.exists()


def test_a_linked_config_is_not_read(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "numbers/config.yaml"
    path.rename(tmp_path / "elsewhere.yaml")
    path.symlink_to(tmp_path / "elsewhere.yaml")
    assert "it is a link" in refused(capsys, "eval", "numbers")
    assert "it is a link" in refused(capsys, "train", "resume=numbers", "trainer.max_step=6")


def as_if_copied(folder: Path, name: str) -> None:
    """Remove the seal of this home from a run."""
    path = folder / "home" / "base" / name / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "composed_seal": ""}))


def test_configs_of_this_folder_with_a_run_of_another_home_go_on_with_numbers_and_words_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "def data(path, size=12):\n    import darkit.data\n    return darkit.data.regression(size, size)\n"
    write(tmp_path / "mine.py", f"{MODEL}\n{data}")
    write(tmp_path / "configs/model/mine.yaml", "_target_: mine.Model\nsize: 12\n")
    write(tmp_path / "configs/data/mine.yaml", "_target_: mine.data\npath: a\nsize: 12\n")
    words = ("model=mine", "data=mine", "model.size=8", "data.size=8", "data.path=other", "loss=mse_loss", "name=own")
    done(capsys, "train", *words, "trainer.max_step=2")
    as_if_copied(tmp_path, "own")
    assert "own: finished at step 3" in done(capsys, "train", "resume=own", "trainer.max_step=3")
    assert "trained with data._target_=mine.data" in refused(capsys, "eval", "own")
    assert "loss" in json.loads(done(capsys, "eval", "own", "--data", "mine", "path=x", "size=8", "--json"))["metrics"]
    done(capsys, "train", *words[:-1], "data.path=other/texts.txt", "name=files", "trainer.max_step=2")
    as_if_copied(tmp_path, "files")
    said = refused(capsys, "train", "resume=files", "trainer.max_step=4")
    assert "was started with data.path=other/texts.txt, which is not trusted in a run directory" in said
    again = ("train", "resume=files", "trainer.max_step=4", "data.path=other/texts.txt")
    assert "files: finished at step 4" in done(capsys, *again)


def test_darkits_own_choices_are_repeated_whatever_their_text(runs: Path) -> None:
    from darkit.cli.recorded import believed_overrides

    told = ["data=files", "data.path='a b/c.txt'", "model.config.norm=rms", "trainer.betas=[0.9,0.95]", *NUMBERS[1:]]
    plant(runs, "numbers", overrides=told)
    assert believed_overrides(Run(runs / "numbers"), ["resume=numbers"], {"model"}) == [
        word for word in told if not word.startswith("model=")
    ]
    plant(runs, "numbers", overrides=[{"a": 1}])
    with pytest.raises(ConfigError, match="started with"):
        believed_overrides(Run(runs / "numbers"), [], set())


OWN_MODEL = """\
from torch import nn
class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.width = width
        self.layer = nn.Linear(2, 1)
    def forward(self, x):
        return self.layer(x)
"""
OWN_DATA = """\
import torch
from torch.utils.data import TensorDataset
def table(path, size=8):
    with open(path) as file:
        number = float(file.read())
    return TensorDataset(torch.randn(size, 2), torch.full((size, 1), number))
"""


def test_a_run_of_this_home_is_resumed_and_evaluated_with_whatever_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "ownnet.py", OWN_MODEL)
    write(tmp_path / "owndata.py", OWN_DATA)
    write(tmp_path / "configs/model/own.yaml", "_target_: ownnet.Net\nwidth: 4\n")
    write(tmp_path / "configs/data/own.yaml", "_target_: owndata.table\npath: null\n")
    write(tmp_path / "texts" / "a b.txt", "3.5")
    begun = ["model=own", "data=own", f"data.path={tmp_path}/texts/a b.txt", "loss=mse_loss", "name=own"]
    done(capsys, "train", *begun, "trainer.max_step=2", "trainer.device=cpu")
    done(capsys, "train", "resume=own", "trainer.max_step=4")
    assert Run(tmp_path / "home" / "base" / "own").latest_checkpoint().step == 4
    config = tmp_path / "home" / "base" / "own" / "config.yaml"
    config.write_text(f"{config.read_text()}changed: true\n")
    assert REFUSED in refused(capsys, "train", "resume=own", "trainer.max_step=6")
    assert REFUSED in refused(capsys, "eval", "own")


def test_a_run_of_the_time_of_another_default_goes_on_with_that_one(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("model.config.num_layers=1", "model.config.hidden_size=16", "model.config.feed_forward_size=16")
    text = ("data.context_length=16", "data.vocab_size=300", "trainer.batch_size=2", "trainer.device=cpu")
    words = ("train", "model=spikegpt", *sizes, *text)
    done(capsys, *words, "model.config.beta=0.5", "trainer.max_step=2", "trainer.save_step_interval=1", "name=early")
    path = runs / "early" / "config.yaml"
    composed = yaml.safe_load(path.read_text())
    composed["overrides"].remove("model.config.beta=0.5")  # as if it had been the default
    path.write_text(yaml.safe_dump(composed))
    done(capsys, "train", "fork=early:iter-1", "trainer.max_step=2", "name=child")
    done(capsys, "train", "resume=early", "trainer.max_step=3")
    assert [Run(runs / name).model_config["beta"] for name in ("early", "child")] == [0.5, 0.5]
    rows = [
        Run(runs / name).log().filter(polars.col("step") == 2)["train_loss"].to_list() for name in ("early", "child")
    ]
    assert rows[0] == rows[1]
    said = refused(capsys, "train", "resume=early", "trainer.max_step=4", "model.config.beta=0.25")
    assert "beta" in said
