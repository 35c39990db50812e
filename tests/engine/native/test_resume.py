"""A resumed LightningModule goes on bit for bit: weights, rows, epoch means and torchmetrics."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import polars
import pytest
from torch import nn
from torch.nn.functional import cross_entropy

import darkit
from darkit.engine.session import Session
from darkit.errors import ConfigError, RunNotFoundError
from darkit.runs import Run
from darkit.runs.requests import request_stop
from tests.engine.native.modules import KINDS, Base, same, samples, train_loader, train_run, val_loader, weights
from tests.engine.resuming import Held

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
HOOKS = ("on_train_batch_start", "on_before_backward", "on_train_batch_end", "on_validation_batch_end")
EPOCHS = 3


class Break(lightning.Callback):
    """Does something once, at the call of a hook."""

    def __init__(self, hook: str, call: int, act: Any) -> None:
        self.left = call
        self.act = act
        setattr(self, hook, self.count)

    def count(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.left -= 1
        if not self.left:
            self.act(trainer)


@contextmanager
def breaking(kind: str, callback: lightning.Callback) -> Iterator[None]:
    made = KINDS[kind]
    KINDS[kind] = (made[0], made[1], lambda: [*made[2](), callback])
    try:
        yield
    finally:
        KINDS[kind] = made


def rows(run: Run) -> polars.DataFrame:
    """Return the log by step; a step whose validation came after a break has it in a row of its own."""
    log = run.log().drop("time")
    return log.group_by("step", maintain_order=True).agg(polars.all().drop_nulls().first()).select(sorted(log.columns))


def check(kind: str, run: Run, module: Any, straight: tuple[Any, Run]) -> None:
    assert same(weights(module), weights(straight[0]))
    assert rows(run).equals(rows(straight[1]))
    assert run.status == "finished"


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 9))])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_anywhere_costs_nothing(kind: str, number: int) -> None:
    chance = random.Random(f"{kind} {number}")
    hook, call = chance.choice(HOOKS), chance.randint(2, 12)

    def fail(trainer: lightning.Trainer) -> None:
        raise RuntimeError("broke")

    straight = train_run(kind, "straight", max_epochs=EPOCHS)
    with breaking(kind, Break(hook, call, fail)), pytest.raises(RuntimeError, match="broke"):
        train_run(kind, "run", max_epochs=EPOCHS)
    held = Held()
    with breaking(kind, held), held.watching():
        module, run = train_run(kind, "run", max_epochs=EPOCHS, resume="auto")
    check(kind, run, module, straight)
    assert not any(held.left), "a second copy of the weights is held"


@pytest.mark.parametrize(
    "number",
    [
        *range(len(KINDS)),
        *(pytest.param(number, marks=pytest.mark.soak) for number in range(len(KINDS), 8 * len(KINDS))),
    ],
)
def test_killed_at_any_place_it_goes_on_as_if_nothing_had_happened(number: int, home: Path) -> None:
    """What a kill leaves is what is on the disk at that moment: a copy of the run directory."""
    chance = random.Random(number)
    kind = list(KINDS)[number % len(KINDS)]
    hook, call = chance.choice(HOOKS), chance.randint(5, 15)

    def copy(trainer: lightning.Trainer) -> None:
        (home / "base" / "run").mkdir()
        # checkpoints first: the log is written before the checkpoint of a step gets its name
        for path in sorted((home / "base" / "straight").iterdir(), key=lambda path: not path.name.startswith("iter-")):
            with suppress(FileNotFoundError):  # a temporary file
                if path.is_file() and path.name != ".lock":
                    shutil.copy(path, home / "base" / "run")

    with breaking(kind, Break(hook, call, copy)):
        straight = train_run(kind, "straight", max_epochs=EPOCHS, save_step_interval=2)
    assert darkit.load("run").status == "crashed"
    module, run = train_run(kind, "run", max_epochs=EPOCHS, resume="auto", save_step_interval=2)
    check(kind, run, module, straight)


def test_a_stop_request_is_honoured_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[Session] = []
    begin = Session.begin
    monkeypatch.setattr(
        Session, "begin", lambda self, *rest, **more: (sessions.append(self), begin(self, *rest, **more))[1]
    )

    def stop(trainer: lightning.Trainer) -> None:
        request_stop(darkit.load("run").path, by="a test")
        while not sessions[-1].guard.request.reason:
            pass

    straight = train_run("metrics", "straight", max_epochs=EPOCHS)
    with breaking("metrics", Break("on_train_batch_start", 10, stop)):
        _, run = train_run("metrics", "run", max_epochs=EPOCHS)
    assert run.status == "stopped"
    assert run.details.step == 10
    module, run = train_run("metrics", "run", max_epochs=EPOCHS, resume=True)
    assert same(weights(module), weights(straight[0]))


def test_a_longer_training_goes_on_exactly() -> None:
    straight = train_run("schedules", "straight", max_epochs=3)
    train_run("schedules", "run", max_epochs=2)
    module, run = train_run("schedules", "run", max_epochs=3, resume=True)
    check("schedules", run, module, straight)


def test_a_run_of_the_other_loop_is_refused() -> None:
    loader = train_loader()
    darkit.fit(nn.Linear(4, 3), samples(), name="run", max_step=2, device="cpu", loss=cross_entropy)
    with pytest.raises(ConfigError, match="own loop"):
        darkit.fit(Base(), samples(), name="run", resume=True, max_step=4, device="cpu")
    with pytest.raises(RunNotFoundError):
        darkit.fit(Base(), loader, name="other", resume=True, max_step=4, device="cpu")


def test_a_checkpoint_that_lightning_wrote_is_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lightning.seed_everything(0, verbose=False)
    module = KINDS["schedules"][0]()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, train_loader(), val_loader())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    other = KINDS["schedules"][0]()
    run = darkit.fit(
        other, train_loader(), val_loader(), name="run", max_epochs=3, device="cpu", resume=str(tmp_path / "last.ckpt")
    )
    assert "random generators" in capsys.readouterr().err
    assert run.log()["step"].to_list() == list(range(15, 22))
    with pytest.raises(ConfigError, match="no checkpoint"):
        darkit.fit(
            other, train_loader(), name="another", resume=str(tmp_path / "none.ckpt"), max_epochs=3, device="cpu"
        )


def test_averaging_goes_on_within_an_epoch() -> None:
    def fail(trainer: lightning.Trainer) -> None:
        raise RuntimeError("broke")

    straight = train_run("swa", "straight", max_epochs=EPOCHS)
    with breaking("swa", Break("on_train_batch_start", 12, fail)), pytest.raises(RuntimeError, match="broke"):
        train_run("swa", "run", max_epochs=EPOCHS)
    module, run = train_run("swa", "run", max_epochs=EPOCHS, resume="auto")
    check("swa", run, module, straight)
