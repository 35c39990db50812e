"""``darkit train``: what composes, what a run then holds, how it goes on, and what is refused."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import polars
import pytest
from omegaconf import OmegaConf

import darkit
from darkit.cli.main import main
from darkit.runs import Run, load
from tests.cli.parts import MODEL, NUMBERS, TEXT, done, names, refused, write


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; whatever is done, nothing is written there but by the test itself."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place
    assert names(place) <= {"configs", "__pycache__", *(path.name for path in place.glob("*.py"))}


def composed(run: Run) -> dict[str, object]:
    content = OmegaConf.to_container(OmegaConf.load(run.path / "config.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def losses(name: str) -> list[float]:
    return load(name).log()["train_loss"].to_list()


def test_the_guides_model_trains_on_a_regression_and_the_report_says_all(capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "train", "model=mymodel", "trainer.max_step=200", "name=first")
    run = load("first")
    log = run.log()
    val = log["val_loss"].drop_nulls()
    assert run.status == "finished"
    assert val[-1] < 0.5
    lines = out.splitlines()
    assert lines[0] == "first: finished at step 200 of 200"
    assert lines[1] == f"  run directory            {run.path}"
    assert (
        lines[2] == f"  train loss               best {log['train_loss'].min():.4f}, last {log['train_loss'][-1]:.4f}"
    )
    assert re.fullmatch(
        rf"  val loss                 best {val.min():.4f}, last {val[-1]:.4f} \(always the mean: 0\.6\d+\)", lines[3]
    )
    errors = log["val_mean_absolute_error"].drop_nulls()
    assert lines[4] == f"  val mean absolute error  best {errors.min():.4f}, last {errors[-1]:.4f}"
    assert re.fullmatch(r"  speed                    \d+\.\d steps/s, \d+\.\d s in all", lines[5])
    assert lines[6] == "next"
    row = ", ".join(["0.5"] * 12)
    assert re.fullmatch(rf'  \S+ predict first "\[\[{row}\]\]"', lines[7])
    assert re.fullmatch(r"  \S+ start", lines[8])
    assert re.fullmatch(r"  \S+ train resume=first trainer\.max_step=400", lines[9])
    assert len(lines) == 10


LIGHTNING = """import lightning, torch
from torch.nn.functional import mse_loss
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(12, 12)
    def training_step(self, batch, index):
        return 1000 * mse_loss(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.log("val_loss", mse_loss(self.net(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-5)
"""


def test_a_lightning_module_trains_as_its_code_says_unless_something_else_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "lit.py", LIGHTNING)
    write(folder / "configs/model/lit.yaml", "_target_: lit.Module\n")
    words = ("train", "model=lit", "data=regression", "trainer.max_step=6", "trainer.device=cpu")
    done(capsys, *words, "name=own")
    kept = composed(load("own"))["trainer"]
    assert isinstance(kept, dict)
    assert not {"lr", "optimizer", "weight_decay", "betas", "warmup_step", "gradient_clip"} & kept.keys()
    assert load("own").log()["lr"].unique().to_list() == [1e-5]
    done(capsys, *words, "name=clipped", "trainer.gradient_clip=1")  # as darkit's own config has it, but asked for
    assert load("clipped").trainer_config["gradient_clip"] == 1
    assert losses("clipped")[-1] > losses("own")[-1]  # its gradients of 1000 times the loss are long
    assert "decide lr: set them there" in refused(capsys, *words, "trainer.lr=0.002")
    assert "decide optimizer: set them there" in refused(capsys, *words, "optimizer=sgd")
    write(folder / "configs/optimizer/adamw.yaml", "# @package trainer\noptimizer: adamw\nweight_decay: 0.3\n")
    assert "decide weight_decay: set them there" in refused(capsys, *words)


def test_the_default_model_trains_on_text_with_its_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, *TEXT)
    (run,) = darkit.runs()
    assert re.fullmatch(r"gpt-\d{8}-\d{6}", run.name)
    assert re.search(r"val loss .*\(unigram model: \d\.\d{4}\)", out)
    assert f'predict {run.name} "The import statement"' in out
    assert (run.path / "tokenizer.json").is_file()
    assert run.config["vocab_size"] == 300
    assert run.trainer_config["scheduler"] == "cosine", "which the model chooses"
    assert run.info["data"]["sample"] == "(int64[16], int64[16])"
    predict, _, resume = (shlex.split(line)[1:] for line in out.splitlines()[-3:])
    assert done(capsys, *predict).startswith("The import statement")
    assert done(capsys, *resume).startswith(f"{run.name}: finished at step 8 of 8\n")


def test_the_composed_config_and_its_overrides_are_in_the_run_directory(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x", "optimizer=sgd", "scheduler=linear", "trainer.lr=0.01")
    values = composed(load("x"))
    assert values["overrides"] == [*NUMBERS[1:], "name='x'", "optimizer=sgd", "scheduler=linear", "trainer.lr=0.01"]
    assert values["model"] == {
        "_target_": "darkit.examples.mymodel.MyModel",
        "config": {
            "_target_": "darkit.examples.mymodel.MyModelConfig",
            "input_size": 12,
            "hidden_size": 24,
            "output_size": 12,
        },
    }
    trainer = values["trainer"]
    assert isinstance(trainer, dict)
    wanted = {"optimizer": "sgd", "scheduler": "linear", "lr": 0.01, "max_step": 4, "name": "x"}
    assert {key: trainer[key] for key in wanted} == wanted
    assert {key: load("x").trainer_config[key] for key in wanted} == wanted


def test_what_is_given_wins_over_what_the_model_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *TEXT, "name=x", "scheduler=constant", "model.config.tie_embeddings=false")
    assert load("x").trainer_config["scheduler"] == "constant"
    assert load("x").config["tie_embeddings"] is False


def test_an_experiment_changes_several_settings_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "train", "model=mymodel", "+experiment=quick", "name=quick", "trainer.log_step_interval=10")
    run = load("quick")
    assert run.details.step == 20
    assert run.log()["step"].to_list() == [10, 20]
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [10, 20]


def test_the_same_seed_makes_the_same_run_from_the_first_weights_on(capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        done(capsys, *NUMBERS, f"name={name}", f"trainer.seed={seed}", "trainer.log_step_interval=1")
    assert losses("one") == losses("same")
    assert losses("one")[0] != losses("other")[0]


NAMES = ["1e-3", "007", "12", "a b", "it's", "a(b)", "x=y", "[a]", "模型", '"', "a'", "a,b", "é"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_what_was_written_and_resumes_so(
    name: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    done(capsys, *NUMBERS, f"name={name}", "trainer.max_step=1")
    assert names(home / "base") == {name}
    out = done(capsys, "train", f"resume={name}", "trainer.max_step=2")
    assert names(home / "base") == {name}
    assert out.startswith(f"{name}: finished at step 2 of 2\n")


def test_a_sweep_is_a_run_for_each_with_its_number_behind_the_name(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    done(capsys, *NUMBERS, "-m", "trainer.lr=1e-3,3e-4", "optimizer=adam,sgd", "name=sw")
    found = {run.name: run.trainer_config for run in darkit.runs()}
    assert {name: (values["lr"], values["optimizer"]) for name, values in found.items()} == {
        "sw-0": (1e-3, "adam"),
        "sw-1": (1e-3, "sgd"),
        "sw-2": (3e-4, "adam"),
        "sw-3": (3e-4, "sgd"),
    }
    assert {values["name"] for values in found.values()} == set(found)
    assert names(home) == {"base", "seal.key", "sweeps"}
    out = done(capsys, "train", "resume=sw-3", "trainer.max_step=5")
    assert out.startswith("sw-3: finished at step 5")
    assert load("sw-3").trainer_config["optimizer"] == "sgd"


def test_a_sweep_over_names_takes_them_as_they_are_and_one_without_a_name_makes_fresh_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done(capsys, *NUMBERS, "--multirun", "name=a,b")
    assert {run.name for run in darkit.runs()} == {"a", "b"}
    done(capsys, *NUMBERS, "-m", "trainer.lr=1e-3,3e-4")
    fresh = [run.name for run in darkit.runs() if run.name not in "ab"]
    assert len(fresh) == 2
    assert all(re.fullmatch(r"mymodel-\d{8}-\d{6}(-2)?", name) for name in fresh)


def test_a_sweep_goes_on_after_a_job_that_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NUMBERS, "-m", "trainer.lr=-1,1e-3", "name=sw"]) == 2
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if not line.startswith("step ")] == [
        "Error: lr must be at least 0, not -1.0."
    ]
    assert out.startswith("sw-1: finished")
    assert [run.name for run in darkit.runs()] == ["sw-1"]


def test_a_sweep_of_which_nothing_comes_leaves_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    refused(capsys, *NUMBERS, "-m", "trainer.lr=-1")
    refused(capsys, *NUMBERS, "-m", "trainer.lr=1,2", "modl=gpt")
    assert not home.exists()
    (home / "sweeps").mkdir(parents=True)
    refused(capsys, *NUMBERS, "-m", "trainer.lr=-1")
    assert names(home) == {"sweeps"}, "which was there before"
    assert names(home / "sweeps") == set()


def test_a_model_of_ones_own_needs_a_target_and_no_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "theirs_alone.py", MODEL)
    write(folder / "configs/model/theirs.yaml", "_target_: theirs_alone.Model\n")
    done(capsys, "train", "model=theirs", "data=regression", "trainer.max_step=300", "name=theirs")
    run = load("theirs")
    assert run.info["model"]["class"] == "theirs_alone.Model"
    assert run.log()["val_loss"].drop_nulls()[-1] < 0.45, "by the data's own loss"
    done(capsys, "predict", "theirs", f"[{list(range(12))}]")
    said = refused(capsys, "train", "model=thiers")
    assert said.startswith("Unknown model 'thiers'. Did you mean 'theirs'? Available: theirs, csnn, gpt, lstm, ")


def test_a_namesake_of_a_model_of_darkits_is_not_left_out_silently(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "mymodel.py", MODEL)
    arguments = ["train", "model=mymodel", "data=regression", "trainer.max_step=1"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # they are errors in the tests
        assert main(arguments) == 0
    said = "Warning: model=mymodel is a model of darkit, not the one in ./mymodel.py."
    assert said in capsys.readouterr().err
    write(folder / "theirs_namesake.py", MODEL)
    write(folder / "configs/model/mymodel.yaml", "_target_: theirs_namesake.Model\n")
    done(capsys, *arguments)  # in which a warning is an error


def test_a_model_of_ones_own_that_does_not_take_text_is_told_of_the_data(
    folder: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    write(folder / "theirs_misfit.py", MODEL)
    write(folder / "configs/model/theirs.yaml", "_target_: theirs_misfit.Model\n")
    assert main(["train", "model=theirs", "data.vocab_size=300"]) == 2
    error, note = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: The model failed on a batch of (int64[16, 128], int64[16, 128]): ")
    assert note == "The data was the default one; data=NAME takes another, such as ./configs/data/NAME.yaml."
    assert names(home / "base") == set()


def test_arguments_that_a_model_does_not_keep_are_remembered_for_prediction(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = MODEL + "class Wide(torch.nn.Sequential):\n    def __init__(self, hidden=3):\n"
    code += "        super().__init__(torch.nn.Linear(12, hidden), torch.nn.Linear(hidden, 12))\n"
    write(folder / "theirs_wide.py", code)
    write(folder / "configs/model/wide.yaml", "_target_: theirs_wide.Wide\nhidden: 5\n")
    done(capsys, "train", "model=wide", "data=regression", "trainer.max_step=2", "name=wide")
    assert load("wide").config == {"hidden": 5}
    done(capsys, "predict", "wide", f"[{list(range(12))}]")


def test_a_model_that_makes_its_loss_of_the_target_is_given_the_target(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import torch\nclass Model(torch.nn.Linear):\n    def forward(self, x, targets):\n"
    code += "        out = super().forward(x)\n        return out, (out - targets).abs().mean() + 100\n"
    write(folder / "theirs_target.py", code)
    config = "_target_: theirs_target.Model\nin_features: ${data.input_size}\nout_features: ${data.output_size}\n"
    write(folder / "configs/model/theirs.yaml", config)
    done(capsys, "train", "model=theirs", "data=regression", "trainer.max_step=2", "name=own")
    assert min(losses("own")) > 100


def test_data_and_settings_of_ones_own_come_before_darkits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        MODEL
        + "def make(samples):\n    x = torch.randn(samples, 12)\n    return {'train': (x, x), 'val': (x, 2 * x)}\n"
    )
    write(folder / "theirs_data.py", code)
    write(folder / "configs/model/gpt.yaml", "_target_: theirs_data.Model\n")
    write(folder / "configs/data/text.yaml", "_target_: theirs_data.make\nsamples: 40\n")
    write(folder / "configs/experiment/tiny.yaml", "# @package _global_\nloss: l1_loss\ntrainer:\n  max_step: 3\n")
    out = done(capsys, "train", "+experiment=tiny", "name=own")
    run = load("own")
    assert run.info["model"]["class"] == "theirs_data.Model"
    assert run.info["data"]["samples"] == 40
    assert run.details.step == 3
    assert run.log()["val_loss"].drop_nulls().len() == 1
    assert "always" not in out


@pytest.mark.parametrize(
    "given", ["mse_loss", "torch.nn.functional.mse_loss", "torch.nn.MSELoss", "{_target_: torch.nn.MSELoss}"]
)
def test_a_loss_is_named_in_several_ways(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=plain")
    out = done(capsys, *NUMBERS, f"loss={given}", "name=given")
    assert losses("given") == losses("plain")
    assert "always the mean" not in out, "a baseline is in the unit of the data's own loss"
    done(capsys, *NUMBERS, "loss=l1_loss", "name=other")
    assert losses("other") != losses("plain")


def test_resume_replays_what_the_run_was_begun_with_and_later_settings_win(capsys: pytest.CaptureFixture[str]) -> None:
    done(
        capsys,
        *NUMBERS,
        "name=x",
        "+experiment=quick",
        "trainer.lr=0.01",
        "optimizer=sgd",
        "trainer.log_step_interval=1",
    )
    before = load("x").log()
    out = done(capsys, "train", "resume=x", "trainer.max_step=6", "+experiment=quick", "trainer.log_step_interval=2")
    assert out.startswith("x: finished at step 6 of 6\n")
    run = load("x")
    log = run.log()
    assert log["step"].to_list() == [1, 2, 3, 4, 6]
    assert log.head(4)["train_loss"].to_list() == before["train_loss"].to_list()
    assert log["lr"].drop_nulls().max() <= 0.01
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [4, 6]


def test_resume_true_goes_on_with_the_named_run(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x")
    assert done(capsys, "train", "resume=true", "name=x", "trainer.max_step=5").startswith("x: finished at step 5")


def test_resume_auto_of_a_complete_run_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    again = [*NUMBERS, "name=x", "resume=auto"]
    done(capsys, *again)
    assert main(again) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "Run 'x' is complete at step 4; nothing to do.\n")


def test_resume_under_a_new_name_begins_a_new_run_from_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x", "trainer.max_step=200", "data.samples=512")
    done(capsys, "train", "resume=x", "name=y", "trainer.max_step=2", "trainer.log_step_interval=1")
    assert load("x").details.step == 200
    run = load("y")
    assert run.details.step == 2
    assert run.log()["train_loss"][0] < 0.6 * load("x").log()["train_loss"][0]


def test_resume_from_an_earlier_checkpoint_goes_on_from_there(capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, *NUMBERS, "name=x", "trainer.save_step_interval=2", "trainer.log_step_interval=1")
    first = load("x").log()
    done(capsys, "train", "resume=x:iter-2-ckpt", "trainer.max_step=5")
    log = load("x").log()
    assert log["step"].to_list() == [1, 2, 3, 4, 5]
    columns = ["step", "train_loss", "lr"]
    assert log.head(4).select(columns).equals(first.select(columns)), "the same steps again"
    assert isinstance(log, polars.DataFrame)
