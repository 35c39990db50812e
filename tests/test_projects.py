"""A run belongs to the project that it was started in, whichever way it was started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import darkit
from darkit.cli.main import main
from darkit.core import Trainer
from darkit.errors import NameInvalidError
from darkit.integrations import wandb
from darkit.runs import base
from darkit.runs.listing import facts_of
from darkit.runs.notes import set_project
from tests.cli.parts import NUMBERS, refused
from tests.engine.native.modules import Base, train_loader

DATA = (torch.ones(8, 2), torch.zeros(8, 1))


def fit(**settings: Any) -> None:
    darkit.fit(nn.Linear(2, 1), DATA, loss=mse_loss, device="cpu", **{"max_step": 2, "name": "one", **settings})


def fit_with_config(project: str) -> None:
    fit(config=darkit.TrainerConfig(project=project, max_step=2))


def fit_lightning(project: str) -> None:
    darkit.fit(Base(), train_loader(), name="one", project=project, max_step=2, device="cpu")


def own_loop(project: str) -> None:
    with darkit.start_run("one", project=project) as run:
        run.log({"loss": 1.0}, step=1)


def guide(project: str) -> None:
    config = darkit.TrainerConfig(name="one", project=project, max_step=2, device="cpu")
    Trainer(nn.Linear(2, 1), None, config, loss=mse_loss).train(torch.utils.data.TensorDataset(*DATA))


def recorder(project: str) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    callbacks = [darkit.RunRecorder("one", project=project)]
    lightning.Trainer(max_steps=2, accelerator="cpu", callbacks=callbacks, **quiet).fit(Base(), train_loader())


def logger(project: str) -> None:
    recorded = darkit.RunLogger("one", project=project)
    recorded.log_metrics({"loss": 1.0}, 0)
    recorded.finalize("success")


def like_wandb(project: str) -> None:
    with wandb.init(name="one", project=project) as run:
        run.log({"loss": 1.0})


def command(project: str) -> None:
    assert main([*NUMBERS, "name=one", f"project={project}"]) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "start",
    [*(lambda project: fit(project=project), fit_with_config, fit_lightning, own_loop, guide, recorder, logger),
     *(like_wandb, command)],
    ids=["fit", "config", "lightning", "own loop", "guide", "recorder", "logger", "wandb", "command"],
)  # fmt: skip
def test_every_way_to_start_a_run_records_its_project(start: Callable[[str], None], home: Path) -> None:
    start("vision")
    assert darkit.load("one").info["project"] == "vision"
    assert facts_of(base() / "one").project == "vision"


def test_a_resumed_run_keeps_its_project_unless_it_is_given_another_one(home: Path) -> None:
    fit(project="first")
    fit(max_step=4, resume=True)
    assert facts_of(base() / "one").project == "first"
    fit(max_step=6, resume=True, project="second")
    assert facts_of(base() / "one").project == "second"
    set_project(base() / "one", "by hand")
    fit(max_step=8, resume=True, project="second")
    assert facts_of(base() / "one").project == "by hand"
    fit(name="none")
    assert "project" not in darkit.load("none").info


def test_a_wrong_project_is_refused_before_anything_is_created(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for start in (lambda: fit(project="a/b"), lambda: own_loop("a/b"), lambda: darkit.RunLogger("one", project="a/b")):
        with pytest.raises(NameInvalidError, match="The project 'a/b' holds a character"):
            start()
    assert "The project 'a/b' holds a character" in refused(capsys, *NUMBERS, "project=a/b")
    assert not home.exists()
