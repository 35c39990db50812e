"""A training of transformers' Trainer with `RunCallback` is a run: its log, its end, its checkpoints, its resume."""

from __future__ import annotations

import json
import signal
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, PreTrainedTokenizerFast, TrainerCallback

import darkit
from darkit.cli.main import main
from darkit.core import Predicter
from darkit.errors import ConfigError, ModelError, RunExistsError
from darkit.integrations.transformers import RunCallback
from darkit.runs.notes import read_notes
from darkit.runs.requests import request_stop
from tests.children import CHECKOUT, Child, Zygote, torchrun
from tests.integrations.trainers import rows, trainer

TIMES = ("runtime", "per_second")  # values that differ from training to training
X = rows()[0]["input_ids"][None]


def logged(name: str = "mine") -> dict[int, dict[str, float]]:
    """The rows of a run by step, without times."""
    found = {}
    for row in darkit.load(name).log().to_dicts():
        kept = {key: value for key, value in row.items() if key not in ("step", "time") and value is not None}
        found[row["step"]] = {key: value for key, value in kept.items() if not key.endswith(TIMES)}
    return found


def history(made: Any) -> dict[int, dict[str, float]]:
    """What the Trainer itself recorded, merged by step, without times."""
    found: dict[int, dict[str, float]] = {}
    for entry in made.state.log_history:
        kept = {key: value for key, value in entry.items() if key != "step" and not key.endswith(TIMES)}
        found.setdefault(entry["step"], {}).update(kept)
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=X).logits
    return found


class At(TrainerCallback):
    """Calls a function at the end of a step."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.action()


def fail() -> None:
    raise ValueError("of the user")


def test_the_run_has_what_the_trainer_has(home: Path, tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(50)}, unk_token="w0"))
    made = trainer(tmp_path / "out", [RunCallback("mine", config={"dataset": "drawn"})])
    made.processing_class = made.callback_handler.processing_class = PreTrainedTokenizerFast(tokenizer_object=words)
    made.train()
    run = darkit.load("mine")
    assert logged() == history(made)
    assert (run.details.state, run.details.step, run.details.max_step) == ("finished", 12, 12)
    assert run.config["learning_rate"] == 0.01
    assert run.config["dataset"] == "drawn"
    assert [one.step for one in run.checkpoints()] == [4, 8, 12]
    assert run.checkpoints()[-1].metrics["eval_loss"] == history(made)[12]["eval_loss"]
    predicter = Predicter.from_pretrained("mine", "cpu")
    assert torch.equal(logits(predicter.model), logits(made.model))
    assert predicter.tokenizer.decode([3]) == "w3"
    assert "".join(predicter.predict("w3", max_new_tokens=2, temperature=0))


def test_the_run_is_predicted_and_exported_by_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trainer(tmp_path / "out", [RunCallback("mine")])
    made.train()
    capsys.readouterr()
    assert main(["predict", "mine", json.dumps(X.tolist())]) == 0
    predicted = torch.tensor(json.loads(capsys.readouterr().out)["logits"])
    assert torch.allclose(predicted, logits(made.model).cpu())
    assert main(["export", "mine", "--format", "hf", "--output", str(tmp_path / "hf")]) == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert torch.equal(logits(loaded), logits(made.model))


def test_a_resumed_training_continues_the_log_and_drops_later_rows(home: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "out", [RunCallback("mine")]).train()
    whole = logged()
    again = trainer(tmp_path / "out", [RunCallback("mine")], max_steps=12)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert logged().keys() == whole.keys()
    for step in range(5, 12):
        assert logged()[step] == whole[step]
    assert [entry["after_step"] for entry in darkit.load("mine").info["continued"]] == [4]


def test_a_run_without_a_name_is_found_again_by_the_checkpoint(home: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "out", [RunCallback()]).train()
    (run,) = darkit.runs()
    trainer(tmp_path / "out", [RunCallback()]).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8"))
    assert darkit.runs() == [run]
    assert len(run.info["continued"]) == 1


def test_a_checkpoint_that_darkit_did_not_finish_is_made_up_for(home: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "out", [RunCallback("mine")]).train()
    run = darkit.load("mine")
    for one in run.checkpoints()[1:]:
        one.path.unlink()
        one.path.with_suffix(".json").unlink()
    whole = logged()
    lines = (run.path / "train_log.csv").read_text().splitlines(keepends=True)
    (run.path / "train_log.csv").write_text("".join(lines[:7]) + lines[7][:9])  # the process died in step 8
    weights = logits(Predicter.from_pretrained("mine:4", "cpu").model)
    trainer(tmp_path / "out", [RunCallback("mine")]).train(
        resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8")
    )
    assert [one.step for one in run.checkpoints()] == [4, 8, 12]
    assert [logged()[step] for step in range(1, 12)] == [whole[step] for step in range(1, 12)]
    assert not torch.equal(logits(Predicter.from_pretrained("mine:8", "cpu").model), weights)


def test_names_and_checkpoints_of_other_runs_are_refused(home: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "out", [RunCallback("mine")]).train()
    trainer(tmp_path / "other", [RunCallback("other")]).train()
    with pytest.raises(RunExistsError, match=r"The run 'mine' exists\. Resume it with trainer\.train"):
        trainer(tmp_path / "out", [RunCallback("mine")]).train()
    with pytest.raises(ConfigError, match="was not saved by the run 'mine'"):
        trainer(tmp_path / "out", [RunCallback("mine")]).train(
            resume_from_checkpoint=str(tmp_path / "other" / "checkpoint-8")
        )
    assert logged() == logged("other")
    with pytest.raises(ConfigError, match="config has 'learning_rate', which is a training argument"):
        trainer(tmp_path / "out", [RunCallback("new", config={"learning_rate": 3})]).train()
    assert {run.name for run in darkit.runs()} == {"mine", "other"}


def test_a_request_stops_the_training_with_both_checkpoints(home: Path, tmp_path: Path) -> None:
    def ask() -> None:
        request_stop(darkit.load("mine").path, by="a test")
        deadline = time.monotonic() + 60
        while not callback.run.should_stop:  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    callback = RunCallback("mine")
    made = trainer(tmp_path / "out", [At(6, ask), callback])
    made.train()
    run = darkit.load("mine")
    assert made.state.global_step == 6
    assert (run.details.state, run.details.reason) == ("stopped", "Stopped by a test.")
    assert run.checkpoints()[-1].step == 6
    assert (tmp_path / "out" / "checkpoint-6").is_dir()


def test_a_training_that_others_end_early_says_so(home: Path, tmp_path: Path) -> None:
    made = trainer(
        tmp_path / "out",
        [RunCallback("mine"), EarlyStoppingCallback(1, 1e9)],
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    made.train()
    run = darkit.load("mine")
    assert run.details.state == "finished"
    assert run.details.reason == "The Trainer ended at step 8 of 12."
    assert [one.step for one in run.checkpoints()] == [4, 8]
    best = Predicter.from_pretrained(f"mine:{made.state.best_global_step}", "cpu")
    assert torch.equal(logits(best.model), logits(made.model))


def test_evaluations_after_the_training_go_into_the_notes(home: Path, tmp_path: Path) -> None:
    made = trainer(tmp_path / "out", [RunCallback("mine")])
    made.evaluate()
    made.train()
    before = logged()
    found = made.evaluate()
    (noted,) = read_notes(darkit.load("mine").path).evaluations
    assert noted.metrics["eval_loss"] == found["eval_loss"]
    assert noted.checkpoint == "iter-12-ckpt"
    assert logged() == before


def test_a_value_that_is_no_number_is_named_once_and_left_out(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: Any = None

    def log() -> None:
        made.log({"confusion": [[1, 2], [3, 4]], "other": 1.5})

    made = trainer(tmp_path / "out", [At(2, log), At(3, log), RunCallback("mine")])
    made.train()
    assert "confusion" not in darkit.load("mine").log().columns
    assert logged()[2]["other"] == 1.5
    assert [record.message for record in caplog.records if "confusion" in record.message] == [
        "'confusion' is not logged: 'confusion' must be a number, a tensor of one element, a short text or a medium "
        "such as darkit.Image, not a list."
    ]


def test_without_weights_there_is_a_log_and_no_prediction(home: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "out", [RunCallback("mine", save=False)]).train()
    whole = logged()
    trainer(tmp_path / "out", [RunCallback("mine", save=False)]).train(
        resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8")
    )
    assert logged().keys() == whole.keys()
    with pytest.raises(ModelError):
        Predicter.from_pretrained("mine", "cpu")


def test_an_error_that_the_program_survives_ends_the_run_at_the_next_training(home: Path, tmp_path: Path) -> None:
    callback = RunCallback("mine")
    made = trainer(tmp_path / "out", [At(3, fail), callback])
    with pytest.raises(ValueError, match="of the user"):
        made.train()
    assert darkit.load("mine").status == "running"
    with pytest.raises(RunExistsError):
        made.train()
    assert darkit.load("mine").status == "crashed"


# Processes of their own


@pytest.fixture(scope="module")
def warm(zygote: Zygote) -> Zygote:
    """What starts processes that need not load transformers either."""
    zygote.preload("transformers.trainer")
    return zygote


SCRIPT = """
import sys, time
from pathlib import Path
from tests.integrations.trainers import trainer
from tests.integrations.test_transformers import At, fail
from darkit.integrations.transformers import RunCallback
from transformers.trainer_utils import get_last_checkpoint
out = Path({out!r})
last = get_last_checkpoint(out) if out.exists() else None
pause = [At(step, lambda: time.sleep({pause})) for step in range(1, 1000)]
made = trainer(out, [*pause, RunCallback("mine"), *{more}], max_steps={steps}, save_steps=2)
made.train(resume_from_checkpoint=last)
print("after the training", flush=True)
"""


def script(zygote: Zygote, home: Path, out: Path, *, steps: int, pause: float = 0.0, more: str = "[]") -> Child:
    return zygote.run(textwrap.dedent(SCRIPT.format(out=str(out), steps=steps, pause=pause, more=more)), home)


def wait_for_step(home: Path, step: int, child: Child) -> None:
    log = home / "base" / "mine" / "train_log.csv"
    deadline = time.monotonic() + 100
    while not log.exists() or f"\n{step}," not in log.read_text():
        assert time.monotonic() < deadline, child.output
        time.sleep(0.01)


@pytest.mark.soak
def test_a_killed_training_is_crashed_and_its_resume_is_what_would_have_followed(
    warm: Zygote, home: Path, tmp_path: Path
) -> None:
    assert script(warm, home, tmp_path / "out", steps=16).wait() == 0
    whole = logged()
    (home / "base").rename(home / "whole")
    for step in (3, 9):
        hold = f"[At({step + 1}, lambda: time.sleep(600))]"  # it cannot end before it is killed
        child = script(warm, home, tmp_path / "killed", steps=16, more=hold)
        wait_for_step(home, step, child)
        child.kill_group()
        assert darkit.load("mine").status == "crashed"
    child = script(warm, home, tmp_path / "killed", steps=16)
    assert child.wait() == 0, child.output
    found = logged()
    assert found.keys() == whole.keys()
    for step in range(1, 16):
        assert {**found[step], "train_loss": 0} == {**whole[step], "train_loss": 0}
    assert darkit.load("mine").status == "finished"


@pytest.mark.few(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_after_a_saved_step(
    warm: Zygote, home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    child = script(warm, home, tmp_path / "out", steps=900, pause=0.05)
    wait_for_step(home, 2, child)
    child.send(number)
    assert child.wait() == 128 + number, child.output
    details = darkit.load("mine").details
    assert (details.state, details.reason) == ("stopped", f"Stopped by {number.name}.")
    assert darkit.load("mine").checkpoints()[-1].step == details.step
    assert (tmp_path / "out" / f"checkpoint-{details.step}").is_dir()
    assert "after the training" not in child.output


def test_an_error_is_in_the_status_with_its_traceback(warm: Zygote, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT.format(out=str(tmp_path / "out"), steps=9, pause=0, more="[At(3, fail)]")))
    assert warm.start([str(path)], home, PYTHONPATH=str(CHECKOUT)).wait() == 1
    details = darkit.load("mine").details
    assert (details.state, details.reason) == ("crashed", "ValueError: of the user")
    assert "in fail" in details.traceback


@pytest.mark.soak
def test_of_two_processes_the_first_writes_and_both_stop(warm: Zygote, home: Path, tmp_path: Path) -> None:
    code = """
    import os, signal, sys
    from pathlib import Path
    from tests.integrations.trainers import trainer
    from tests.integrations.test_transformers import At
    from darkit.integrations.transformers import RunCallback
    rank = int(os.environ["RANK"])
    ask = At(13, lambda: os.kill(os.getpid(), signal.SIGUSR1) if rank else None)
    made = trainer(Path(sys.argv[1]), [ask, RunCallback("mine")], max_steps=60, ddp_backend="gloo")
    try:
        made.train()
    finally:
        print("rank", rank, "ended at", made.state.global_step, flush=True)
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(code))
    output = torchrun(warm, home, str(path), str(tmp_path / "out"), code=1)
    ends = sorted(line for line in output.splitlines() if line.startswith("rank "))
    assert ends == ["rank 0 ended at 20", "rank 1 ended at 20"], output[-3000:]
    run = darkit.load("mine")
    assert (run.details.state, run.details.reason) == ("stopped", "Stopped with another process of this training.")
    assert run.details.step == 20
    assert sorted(logged()) == list(range(1, 21))
    assert json.loads((run.path / "run.json").read_text())["trainer"] == "transformers"
