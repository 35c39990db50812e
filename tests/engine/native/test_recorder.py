"""`RunRecorder` in a stock trainer: the training is unchanged, and is a run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import lightning
import polars
import pytest
import torch
from torch.utils.data import DataLoader

import darkit
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.native.recorder import RunRecorder
from darkit.errors import ConfigError, NameInvalidError, RunExistsError
from darkit.runs import Run
from darkit.runs.media import read_media, read_medium
from darkit.runs.requests import request_stop
from tests.engine.native.modules import (
    KINDS,
    Base,
    Metrics,
    same,
    samples,
    train_loader,
    train_stock,
    val_loader,
    weights,
)
from tests.engine.resuming import Held

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def trainer_with(recorder: RunRecorder, *callbacks: lightning.Callback, **settings: Any) -> lightning.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(
        accelerator="cpu",
        callbacks=[*callbacks, recorder],
        **{"max_epochs": 3, "log_every_n_steps": 1, **quiet, **settings},
    )


def train(
    kind: str, recorder: RunRecorder, *callbacks: lightning.Callback, **settings: Any
) -> lightning.LightningModule:
    make, options, own = KINDS[kind]
    ckpt_path = settings.pop("ckpt_path", None)
    lightning.seed_everything(0, verbose=False)
    module = make()
    trainer = trainer_with(recorder, *own(), *callbacks, **{**options, **settings})
    lightning.seed_everything(0, verbose=False)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=ckpt_path, weights_only=True)
    return module


class Fail(lightning.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("broke")


def log_of(run: Run) -> polars.DataFrame:
    log = run.log().drop("time")
    return log.select(sorted(log.columns))


@pytest.mark.parametrize("kind", ["schedules", "gan", "metrics", "swa"])
def test_the_weights_are_those_without_it(kind: str) -> None:
    recorder = RunRecorder("run", save_step_interval=5)
    assert same(weights(train(kind, recorder)), weights(train_stock(kind, max_epochs=3)))
    run = darkit.load("run")
    assert recorder.run == run
    assert run.status == "finished"
    assert run.config == {"width": 8} or kind in ("gan", "metrics")
    assert run.checkpoints()


def test_the_log_has_everything_and_nothing_of_the_trainer_is_left_changed() -> None:
    recorder = RunRecorder("run")
    module = Metrics()
    trainer = trainer_with(recorder)
    trainer.fit(module, train_loader(), val_loader())
    assert {"accuracy_step", "accuracy_epoch", "mean", "val_accuracy", "val_loss", "sum"} <= set(
        darkit.load("run").log().columns
    )
    assert trainer.loggers == []
    for part in (trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer.strategy, trainer._checkpoint_connector):
        assert not [name for name, value in vars(part).items() if "<locals>.wrapped" in repr(value)]
    assert "process_dataloader" not in vars(trainer.strategy)


@pytest.mark.parametrize("kind", ["schedules", "metrics", "manual accumulation"])
@pytest.mark.parametrize("way", ["auto", "ckpt_path"])
def test_it_goes_on_exactly(kind: str, way: str) -> None:
    straight = train(kind, RunRecorder("straight", save_step_interval=4))
    with pytest.raises(RuntimeError, match="broke"):
        train(kind, RunRecorder("run", save_step_interval=4), Fail(2 if kind.startswith("manual") else 10))
    assert darkit.load("run").status == "crashed"
    if way == "auto":
        held = Held()
        with held.watching():
            module = train(kind, RunRecorder("run", save_step_interval=4, resume="auto"), held)
        assert held.read
        assert set(held.left) == {0}, "a second copy of the weights is held"
    else:
        recorder = RunRecorder("run", save_step_interval=4)
        assert recorder.latest is not None
        module = train(kind, recorder, ckpt_path=recorder.latest)
    assert same(weights(module), weights(straight))
    assert darkit.load("run").status == "finished"
    assert log_of(darkit.load("run")).equals(log_of(darkit.load("straight")))


def test_a_run_of_the_name_and_wrong_settings_are_refused() -> None:
    train("plain", RunRecorder("run"), max_epochs=1)
    with pytest.raises(RunExistsError):
        train("plain", RunRecorder("run"), max_epochs=1)
    for settings, error in (
        ({"name": "a/b"}, NameInvalidError),
        ({"name": "x", "resume": True}, ConfigError),
        ({"resume": "auto"}, ConfigError),
        ({"name": "x", "save_step_interval": -1}, ConfigError),
        ({"name": "x", "mode": "best"}, ConfigError),
    ):
        with pytest.raises(error):
            RunRecorder(**settings)  # type: ignore[arg-type]
    assert [run.name for run in darkit.runs()] == ["run"]


def test_fast_dev_run_records_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    train("plain", RunRecorder("run"), fast_dev_run=2)
    assert not darkit.runs()
    assert "nothing is recorded" in capsys.readouterr().err


def test_a_stop_request_ends_the_training_with_its_last_step_saved() -> None:
    class Ask(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *arguments: Any) -> None:
            if trainer.global_step == 5:
                request_stop(darkit.load("run").path, by="a test")
                recording: Any = next(part.recording for part in trainer.callbacks if isinstance(part, RunRecorder))
                while not recording.session.guard.request.reason:
                    pass

    train("plain", RunRecorder("run"), Ask())
    run = darkit.load("run")
    assert (run.status, run.details.step) == ("stopped", 6)
    assert "a test" in run.details.reason
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [6]


SCRIPT = """
import os, sys
import lightning, torch, warnings
warnings.simplefilter("ignore")
from tests.engine.native.modules import Base, train_loader
from darkit.engine.native.recorder import RunRecorder
class Die(lightning.Callback):
    def on_train_batch_start(self, trainer, *arguments):
        if trainer.global_step == 7:
            os.kill(os.getpid(), int(sys.argv[1]))
trainer = lightning.Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
    callbacks=[Die(), RunRecorder("run", save_step_interval=3)], enable_progress_bar=False)
trainer.fit(Base(), train_loader())
"""


@pytest.mark.parametrize(
    ("number", "status", "steps"), [(9, "crashed", [3, 6]), (15, "stopped", [3, 6, 8]), (2, "stopped", [3, 6, 7])]
)
def test_the_status_is_true_after_a_signal(number: int, status: str, steps: list[int], python: str) -> None:
    done = subprocess.run(
        [python, "-c", SCRIPT, str(number)], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    run = darkit.load("run")
    assert run.status == status, done.stderr
    saved = [checkpoint.step for checkpoint in run.checkpoints()]
    assert saved == steps or (number == 9 and saved == steps[:1])  # the last one was being written


def test_a_model_can_be_predicted_with_by_name() -> None:
    from darkit.core import Predicter

    module = train("plain", RunRecorder("run"), max_epochs=1)
    predicter = Predicter.from_pretrained("run")
    x = torch.randn(3, 4)
    module.eval()
    assert torch.equal(predicter.model(x), module(x))


def test_a_loader_without_a_state_is_said_not_to_resume_exactly() -> None:
    def fit(recorder: RunRecorder, *callbacks: lightning.Callback) -> None:
        trainer_with(recorder, *callbacks, max_epochs=2).fit(Base(), DataLoader(samples(), 6, shuffle=True))

    with pytest.raises(RuntimeError, match="broke"):
        fit(RunRecorder("run"), Fail(10))
    with pytest.warns(darkit.errors.ReproductionWarning, match=r"darkit\.dataloader"):
        fit(RunRecorder("run", resume="auto"))
    assert darkit.load("run").log()["step"].to_list() == [*range(1, 15)]


def test_torchdatas_stateful_loader_goes_on_exactly() -> None:
    from torchdata import stateful_dataloader as stateful

    def fit(recorder: RunRecorder, *callbacks: lightning.Callback) -> lightning.LightningModule:
        lightning.seed_everything(0, verbose=False)
        module = Base()
        loader = stateful.StatefulDataLoader(samples(), 6, shuffle=True, generator=torch.Generator().manual_seed(4))
        trainer = trainer_with(recorder, *callbacks, max_epochs=2)
        lightning.seed_everything(0, verbose=False)
        trainer.fit(module, loader)
        return module

    straight = fit(RunRecorder("straight", save_step_interval=3))
    with pytest.raises(RuntimeError, match="broke"):
        fit(RunRecorder("run", save_step_interval=3), Fail(10))
    module = fit(RunRecorder("run", save_step_interval=3, resume="auto"))
    assert same(weights(module), weights(straight))


def test_the_same_trainer_can_fit_again() -> None:
    recorder = RunRecorder("run")
    trainer = trainer_with(recorder, max_epochs=1)
    module = Base()
    trainer.fit(module, train_loader())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, train_loader())
    assert darkit.load("run").details.step == 14
    _, content = read_run_checkpoint(darkit.load("run").path)
    assert content["current_step"] == 14


class Showing(Base):
    """Returns media with its loss."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.loss(batch), "said": darkit.Text(f"batch {batch_idx}")}


@pytest.mark.parametrize("how", ["stock", "fit"])
def test_media_in_what_a_training_step_returns_are_logged_with_the_row(how: str) -> None:
    if how == "stock":
        trainer_with(RunRecorder("shows"), max_steps=4, log_every_n_steps=2).fit(Showing(), train_loader())
    else:
        darkit.fit(Showing(), train_loader(), name="shows", max_step=4, log_step_interval=2, device="cpu")
    run = darkit.load("shows")
    found = [(one.key, one.step, read_medium(run.path, one).decode()) for one in read_media(run.path)]
    assert found == [("said", step, f"batch {step - 1}") for step in run.log()["step"].to_list()]
    assert found[-1][1] == 4
    assert "said" not in run.log().columns


def test_values_between_the_steps_that_lightning_logs_are_in_the_log() -> None:
    train("metrics", RunRecorder("run"), log_every_n_steps=50)
    log = darkit.load("run").log()
    assert log.filter(log["val_loss"].is_not_null())["step"].to_list() == [7, 14, 21]
    assert log["accuracy_epoch"].drop_nulls().len() == 3
