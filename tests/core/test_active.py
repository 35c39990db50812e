"""A run around a loop that darkit does not know: what is logged, saved, refused and found again."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import darkit
from darkit.core import Predicter
from darkit.errors import (
    CheckpointUnreadableError,
    ConfigError,
    DarkitError,
    ModelError,
    NameInvalidError,
    RunExistsError,
    RunLockedError,
)
from darkit.runs import base, files
from darkit.runs.requests import request_stop
from darkit.runs.verify import find_problem
from tests.core.parts import Net, NetConfig, rows


def test_three_lines_make_a_run_that_is_logged_saved_and_finished() -> None:
    model = Net(NetConfig())
    optimizer = torch.optim.Adam(model.parameters())
    with darkit.start_run("mine", config={"lr": 1e-3, "depth": 4}, max_step=4) as run:
        for step in range(1, 5):
            loss = model(torch.ones(2, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log({"loss": loss, "acc": 0.5}, step=step)
            assert darkit.load("mine").status == "running"
        run.save(model=model, optimizer=optimizer, step=step)
    found = darkit.load("mine")
    assert (found.status, found.details.step, found.details.max_step, found.details.reason) == ("finished", 4, 4, "")
    assert found.config == {"lr": 1e-3, "depth": 4}
    assert found.log().columns == ["step", "time", "loss", "acc"]
    assert [row["step"] for row in rows("mine")] == [1, 2, 3, 4]
    (checkpoint,) = found.checkpoints()
    assert checkpoint.metrics == {"loss": rows("mine")[-1]["loss"], "acc": 0.5}
    assert not find_problem(checkpoint)
    assert "seed" not in found.info  # which darkit does not know


def test_the_model_of_a_loop_is_found_again_by_its_name() -> None:
    model, later = Net(NetConfig(hidden=5)), Net(NetConfig(hidden=3))
    with darkit.start_run("early", model=model, config={"lr": 1.0}) as run:
        run.save(model=model, step=1)
    with darkit.start_run("late", config={"lr": 1.0}) as run:
        run.log({"loss": 1.0})
        run.save(model=nn.DataParallel(later))
    for name, trained in (("early", model), ("late", later)):
        assert torch.equal(
            Predicter.from_pretrained(name, device="cpu").predict(torch.ones(1, 4)), trained(torch.ones(1, 4))
        )
        assert darkit.load(name).config == {"lr": 1.0}
        assert Predicter.get_model_config_json(name) == {"inputs": 4, "hidden": trained.config.hidden}
        assert (darkit.load(name).path / files.MODEL_SOURCE).read_text().startswith("class Net")


def test_a_run_without_a_model_says_so_when_one_predicts_with_it() -> None:
    with darkit.start_run("bare") as run:
        run.save(state=torch.ones(2), step=1)
    with pytest.raises(ModelError, match="'bare' was recorded without its model: pass the model itself as model="):
        Predicter.from_pretrained("bare")


@dataclass
class Settings:
    lr: float = 0.1
    path: Path = Path("data")


@pytest.mark.parametrize(
    "config", [Settings(), argparse.Namespace(lr=0.1, path="data"), {"lr": 0.1, "path": Path("data")}]
)
def test_a_config_is_a_dict_a_dataclass_or_a_namespace(config: Any) -> None:
    with darkit.start_run("mine", config=config) as run:
        assert run.config == {"lr": 0.1, "path": "data"}
    assert darkit.load("mine").config == {"lr": 0.1, "path": "data"}


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"name": "../up"}, NameInvalidError, "run name '../up'"),
        ({"name": 5}, ConfigError, "name must be text, not 5"),
        ({"config": "lr=1"}, ConfigError, "config must be a dict, a dataclass or a namespace, not str"),
        ({"config": [1]}, ConfigError, "not list"),
        ({"max_step": 0}, ConfigError, "max_step must be at least 1, not 0"),
        ({"max_step": "9"}, ConfigError, "max_step must be a whole number, not '9'"),
        ({"keep_last": 0}, ConfigError, "keep_last must be at least 1"),
        ({"mode": "up"}, ConfigError, "mode must be one of auto, min, max"),
        ({"model": 3}, ModelError, "model must be a torch.nn.Module, not int"),
        ({"tokenizer": 3}, ConfigError, "tokenizer must be"),
        ({"series": {"a": ["x"]}}, ConfigError, "series must be like"),
        ({"resume": "no-such-run"}, DarkitError, "There is no run 'no-such-run'"),
        ({"name": None, "resume": True}, ConfigError, "no name was given"),
    ],
)
def test_a_wrong_argument_is_refused_and_leaves_nothing_behind(
    arguments: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as refused:
        darkit.start_run(**{"name": "mine", **arguments})
    assert said in str(refused.value)
    assert not base().exists() or not list(base().iterdir())


def test_a_name_is_used_once() -> None:
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0})
        with pytest.raises(RunExistsError, match=r"'mine' is open in this process: call its finish\(\) first"):
            darkit.start_run("mine")
        with pytest.raises(RunLockedError, match="'mine' is open in this process"):
            darkit.start_run("mine", resume="auto")
        with darkit.start_run("other") as beside:
            beside.log({"loss": 2.0})
        run.log({"loss": 3.0})
    with pytest.raises(RunExistsError, match="'mine' already exists"):
        darkit.start_run("mine")
    assert [row["loss"] for row in rows("mine")] == [1.0, 3.0]
    assert rows("other") == [{"step": 1, "loss": 2.0}]


def test_a_run_without_a_name_gets_one() -> None:
    with darkit.start_run() as run, darkit.start_run(model=Net(NetConfig())) as other:
        assert run.name.startswith("run-")
        assert other.name.startswith("net-")
        assert run.path == base() / run.name
    assert "DARKIT_RUN_NAME" not in os.environ


def test_after_its_end_a_run_takes_nothing() -> None:
    run = darkit.start_run("mine")
    run.log({"loss": 1.0})
    run.finish()
    run.finish()
    for late in (lambda: run.log({"loss": 2.0}), lambda: run.save(step=3), lambda: run.restore()):
        with pytest.raises(DarkitError):
            late()
    assert not run.should_stop
    assert rows("mine") == [{"step": 1, "loss": 1.0}]
    with darkit.start_run("again") as again:
        again.log({"loss": 1.0})


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"model": 3}, ModelError, "model must be a torch.nn.Module, not int"),
        ({"model": [nn.Linear(1, 1)]}, ModelError, "give other models under other names"),
        ({"optimizer": 0.1}, ConfigError, "optimizer must be an optimizer, or a list or dict of them, not float"),
        ({"step": 2}, ConfigError, r"save(step=2) is before step 3"),
        ({"step": 3.5}, ConfigError, "step must be a whole number of at least 0, not 3.5"),
        ({"rate": Decimal(1)}, CheckpointUnreadableError, "rate needs decimal.Decimal"),
        ({"path": Path("x")}, CheckpointUnreadableError, "path needs "),
    ],
)
def test_what_cannot_be_saved_is_refused_at_the_call(arguments: Any, kind: type[Exception], said: str) -> None:
    with darkit.start_run("mine") as run:
        run.log({"loss": 0.5}, step=3)
        with pytest.raises(kind) as refused:
            run.save(**arguments)
        assert said in str(refused.value)
    assert darkit.load("mine").checkpoints() == []


def test_the_best_and_the_last_checkpoints_are_kept() -> None:
    with darkit.start_run("mine", keep_last=1, keep_best=1, monitor="acc") as run:
        for step, accuracy in enumerate([0.1, 0.9, 0.3, 0.2], 1):
            run.log({"acc": accuracy}, step=step)
            run.save(step=step)
    assert [checkpoint.step for checkpoint in darkit.load("mine").checkpoints()] == [2, 4]


def test_a_stop_request_ends_the_block_after_a_step_that_could_be_saved() -> None:
    reached = 0
    with darkit.start_run("mine", max_step=100) as run:
        for step in range(1, 101):
            if step == 5:
                request_stop(run.path, "a test")
                wait_until(lambda: run.should_stop)
            run.log({"loss": 1.0}, step=step)
            reached = step
            if step % 50 == 0 or run.should_stop:
                run.save(step=step)
    found = darkit.load("mine")
    assert (reached, found.status, found.details.step) == (5, "stopped", 5)
    assert found.details.reason == "Stopped by a test."
    assert [row["step"] for row in rows("mine")] == [1, 2, 3, 4, 5]
    assert [checkpoint.step for checkpoint in found.checkpoints()] == [5]
    assert not (found.path / files.STOP).exists()


def test_a_loop_that_saves_nothing_is_stopped_where_its_next_step_begins() -> None:
    with darkit.start_run("mine") as run:
        for step in range(1, 101):
            if step == 5:
                request_stop(run.path, "a test")
                wait_until(lambda: bool(run._session.guard.request.reason))
            run.log({"loss": 1.0}, step=step)
            run.log({"acc": 1.0}, step=step)
    found = darkit.load("mine")
    assert (found.status, found.details.step) == ("stopped", 5)
    assert rows("mine")[-1] == {"step": 5, "loss": 1.0, "acc": 1.0}


def test_outside_of_a_block_a_stop_request_is_only_told(caplog: pytest.LogCaptureFixture) -> None:
    run = darkit.start_run("mine", max_step=10)
    request_stop(run.path, "a test")
    wait_until(lambda: bool(run._session.guard.request.reason))
    for step in range(1, 5):
        run.log({"loss": 1.0}, step=step)
    assert caplog.text.count("A stop of run 'mine' was requested, but its loop continues") == 1
    assert run.should_stop
    run.finish()
    assert darkit.load("mine").status == "stopped"
    assert len(rows("mine")) == 4


def test_another_thread_of_a_block_is_not_left_by_a_stop_request() -> None:
    seen: list[Any] = []
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0}, step=1)
        request_stop(run.path, "a test")
        wait_until(lambda: run.should_stop)

        def work() -> None:
            seen.extend(step for step in range(2, 6) if run.log({"loss": 1.0}, step=step) is None)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [2, 3, 4, 5]
    assert darkit.load("mine").status == "stopped"


def test_rows_that_could_not_be_written_are_an_error_of_a_later_call() -> None:
    with pytest.raises(DarkitError, match="log"), darkit.start_run("mine", tensorboard=False) as run:
        run.log({"loss": 1.0})
        (run.path / files.LOG).unlink()
        (run.path / files.LOG).mkdir()
        while True:
            run.log({"loss": 1.0})
            time.sleep(0.001)
    assert darkit.load("mine").status == "crashed"


def test_the_curves_are_those_given_or_every_number() -> None:
    with darkit.start_run("mine"):
        pass
    with darkit.start_run("series", series={"loss": ["epoch", "loss"]}) as run:
        run.log({"epoch": 0.5, "loss": 1.0})
    assert darkit.load("mine").series == {}
    assert darkit.load("series").series == {"loss": ["epoch", "loss"]}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
