"""``darkit eval``: a run's model on other data, printed, and noted beside the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import darkit
import darkit.core
from darkit.cli.main import main
from darkit.data.digits import digits
from darkit.runs.notes import Notes, read_notes, write_notes
from tests.cli.parts import TEXT, done, refused
from tests.engine.native.modules import Base, samples

FILES = ("data=files", "data.path=texts", *(word for word in TEXT[1:] if not word.startswith("data.vocab")))


ODD = """import torch
class Odd(torch.nn.Linear):
    def __init__(self):
        super().__init__(12, 12)
    def training_step(self, batch):
        loss = (self(batch[0]) - batch[1]).square().mean()
        return {"loss": loss, "[red]gap[/red]": loss}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "texts").mkdir()
    for name in ("one", "two", "three"):
        (tmp_path / f"texts/{name}.txt").write_text(f"This is {name} of the texts.\n" * 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    found = json.loads(done(capsys, "eval", *words, "--json"))["metrics"]
    assert isinstance(found, dict)
    return found


def test_a_runs_own_data_has_the_loss_that_the_training_logged(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", *FILES, "trainer.eval_iters=0", "name=run", "data.vocab_size=300")
    found = metrics(capsys, "run", "--batch-size", "2")
    assert found["loss"] == pytest.approx(darkit.load("run").log()["val_loss"].drop_nulls()[-1], rel=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


def test_a_run_without_validation_data_is_not_evaluated_on_what_it_was_trained_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done(capsys, "train", *FILES, "data.val_fraction=0", "name=run", "data.vocab_size=300")
    for further in ((), ("--watch",)):
        said = refused(capsys, "eval", "run", *further)
        assert said == "The run 'run' has no validation data. Give some: --data NAME KEY=VALUE."
    assert [run.name for run in darkit.runs()] == ["run"]
    assert metrics(capsys, "run", "--data", "texts")["loss"] > 0


def test_other_files_are_evaluated_whole_with_the_runs_tokenizer_and_noted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done(capsys, *TEXT, "name=run")
    write_notes(darkit.load("run").path, Notes(("kept",), "a word"))
    (folder / "same.txt").write_text("The import statement. " * 30)
    (folder / "other.txt").write_text("zq%~ " * 100)
    out = done(capsys, "eval", "run:iter-4-ckpt", "--data", "same.txt")
    assert out.splitlines()[0] == "run:iter-4-ckpt on same.txt"
    assert {line.split()[0] for line in out.splitlines()[1:]} == {"loss", "perplexity"}
    done(capsys, "eval", "run", "--data", "other.txt")
    notes = read_notes(darkit.load("run").path)
    assert (notes.tags, notes.note) == (("kept",), "a word")
    assert [(one.data, one.checkpoint) for one in notes.evaluations] == [
        ("same.txt", "iter-4-ckpt"),
        ("other.txt", "iter-4-ckpt"),
    ]
    assert set(notes.evaluations[0].metrics) == {"loss", "perplexity"}


def test_a_choice_takes_the_runs_tokenizer_and_one_with_its_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *TEXT, "name=run")
    choice = ("files", "path=texts", "context_length=16", "documents=line")
    found = metrics(capsys, "run", "--data", *choice, "val_fraction=0")
    assert found["loss"] == pytest.approx(metrics(capsys, "run", "--data", "texts")["loss"], rel=0.05)
    said = refused(capsys, "eval", "run", "--data", "text", "vocab_size=290", "context_length=16")
    assert said.startswith("The tokenizer of this data is not the one of the run 'run'. Give data with the setting ")
    assert len(read_notes(darkit.load("run").path).evaluations) == 2


def test_the_loss_of_pairs_is_no_perplexity(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        (folder / f"texts/{number}.txt").write_text(f"This is text {number}. It has two sentences.\n" * 9)
    sizes = [f"model.config.{name}=16" for name in ("hidden_size", "feed_forward_size")]
    pairs = ("data=pairs", "data.path=texts", "data.vocab_size=90", "data.context_length=16")
    little = ("model.config.num_layers=1", "trainer.max_step=1", "name=run")
    done(capsys, "train", "model=spikebert", *sizes, *pairs, *little)
    assert "perplexity" not in metrics(capsys, "run")


def test_a_choice_with_settings_gives_the_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", "model=mlp", "trainer.max_step=150", "name=run")
    found = metrics(capsys, "run", "--data", "digits", "seed=3")
    assert set(found) == {"loss", "accuracy"}
    assert found["accuracy"] > 0.8
    assert read_notes(darkit.load("run").path).evaluations[0].data == "digits seed=3"


def test_a_regression_gives_its_errors(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", "model=mymodel", "name=run", "trainer.max_step=1")
    found = metrics(capsys, "run", "--data", "regression", "seed=5", "input_size=12", "output_size=12")
    assert found["loss"] > found["mean_absolute_error"] ** 2 > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "There is no run 'nope'"),
        (("run", "--data", "digit"), "No file or data choice is named 'digit'. Did you mean 'digits'?"),
        (("run", "--data", "digits", "sead=1"), "Unknown data setting 'sead'. Did you mean 'seed'?"),
        (("run", "--data", "digits", "seed"), "'seed' is not a setting: write it as key=value."),
        (("run", "--data", "texts"), "was not trained with files, but with darkit.data.digits.digits."),
        (("run", "--batch-size", "0"), "batch_size must be at least 1, not 0."),
        (("run", "--data", "text"), ""),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_noted(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    done(capsys, "train", "model=mlp", "trainer.max_step=2", "name=run")
    assert said in refused(capsys, "eval", *words)
    assert read_notes(darkit.load("run").path).evaluations == ()


def test_other_labels_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, labels in (("one", "ab"), ("other", "bc")):
        rows = [f"{number},{label}" for number in range(9) for label in labels]
        (folder / f"{name}.csv").write_text("\n".join(["x,label", *rows]) + "\n")
    table = ("data=table", "data.features=[x]", "data.target=label", "data.path=one.csv")
    done(capsys, "train", "model=mlp", *table, "trainer.max_step=2", "name=run")
    said = refused(capsys, "eval", "run", "--data", "other.csv")
    assert said == "The labels of this data are b, c, but the model predicts a, b."


def test_what_a_model_calls_its_measures_is_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "odd.py").write_text(ODD)
    darkit_train = ("train", "data=regression", "model=odd", "trainer.max_step=1", "name=run")
    (folder / "configs/model").mkdir(parents=True)
    (folder / "configs/model/odd.yaml").write_text("_target_: odd.Odd\n")
    done(capsys, *darkit_train)
    assert "[red]gap[/red]" in done(capsys, "eval", "run")


def test_notes_that_cannot_be_read_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", "model=mlp", "trainer.max_step=2", "name=run")
    path = darkit.load("run").path / "notes.json"
    path.write_text("{half")
    capsys.readouterr()
    assert main(["eval", "run"]) == 2
    told = capsys.readouterr()
    assert "loss" in told.out, "the result is shown before"
    assert "stay as they are" in told.err
    assert path.read_text() == "{half"


def test_watching_gives_a_run_with_the_losses_that_the_training_logged(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in done(capsys, "eval", "text", "--watch", "--json").splitlines()]
    logged = darkit.load("text").log().select("step", "val_loss").drop_nulls().rows()
    assert [(one["step"], one["metrics"]["val_loss"]) for one in lines] == logged
    assert darkit.load("text-eval").log().select("step", "val_loss").rows() == logged
    assert done(capsys, "eval", "text", "--watch") == ""
    assert (
        done(capsys, "eval", "numbers", "--watch", "--into", "other")
        .splitlines()[0]
        .startswith("iter-2-ckpt  val_loss ")
    )
    assert refused(capsys, "eval", "text:iter-2", "--watch").endswith("write text without :iter-2.")
    assert refused(capsys, "eval", "text", "--into", "other").startswith("--into is the run of --watch.")


class Digits(torch.nn.Linear):
    """Scores of the ten digits."""

    def __init__(self) -> None:
        super().__init__(64, 10)


class Validates(darkit.core.Trainer):
    """Evaluates in its own way."""

    def validate(self, val_dataloader: Any) -> Any:
        return {"val_loss": 1.0}


def smoothed(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs, target, label_smoothing=0.1)


def test_watching_refuses_what_only_the_script_of_the_training_has(capsys: pytest.CaptureFixture[str]) -> None:
    data = digits()
    usual: dict[str, Any] = {"device": "cpu", "tensorboard": False, "max_step": 2, "save_step_interval": 1}

    def told(name: str) -> str:
        said = refused(capsys, "eval", name, "--watch", "--data", "digits")
        assert f"{name}-eval" not in [run.name for run in darkit.runs()]
        return said

    darkit.fit(Digits(), data.train, data.val, loss=smoothed, name="loss", **usual)
    assert darkit.load("loss").info["objective"] == {"loss": f"{__name__}.smoothed"}
    assert f"was trained with loss={__name__}.smoothed, which only its script has, so --watch" in told("loss")
    darkit.fit(Digits(), data.train, data.val, loss=data.loss, metrics={"one": smoothed}, name="metrics", **usual)
    assert "was trained with metrics= (one), which only its script has" in told("metrics")
    Validates(Digits(), darkit.TrainerConfig(name="validate", **usual), loss=data.loss).train(data.train, data.val)
    assert "was trained with a validate() of its trainer, which only its script has" in told("validate")
    darkit.fit(Digits(), data.train, data.val, loss=data.loss, name="known", **usual)
    assert done(capsys, "eval", "known", "--watch", "--data", "digits").startswith("iter-1-ckpt  val_loss ")
    logged = darkit.load("known").log().select("step", "val_loss").drop_nulls().rows()
    assert set(logged) <= set(darkit.load("known-eval").log().select("step", "val_loss").rows())


def test_watching_refuses_a_run_of_lightnings_own_loop(capsys: pytest.CaptureFixture[str]) -> None:
    darkit.fit(Base(), samples(), samples(), name="native", max_step=2, device="cpu", tensorboard=False)
    said = refused(capsys, "eval", "native", "--watch", "--data", "digits")
    assert said.startswith("The run 'native' was trained by Lightning's own loop, which averages an evaluation in its")
