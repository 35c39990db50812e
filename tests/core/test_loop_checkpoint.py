"""What a loop saves and gets back: everything that it names, exactly, or a refusal."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import darkit
from darkit.core.active import ActiveRun
from darkit.errors import CheckpointMismatchError, CheckpointNotFoundError, ConfigError, LogError
from darkit.runs.run import Run


class Parts:
    """A small training with everything that has a state, and numbers that depend on all of it."""

    def __init__(self, width: int = 6) -> None:
        torch.manual_seed(3)
        random.seed(3)
        numpy.random.seed(3)
        self.model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))
        self.other = nn.Linear(1, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.others = [torch.optim.SGD(self.other.parameters(), lr=0.1, momentum=0.9)]
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=40)
        self.averaged = torch.optim.swa_utils.AveragedModel(self.model)
        self.generator = torch.Generator().manual_seed(5)
        self.history: list[float] = []

    def state(self) -> dict[str, Any]:
        names = ("other", "others", "schedule", "averaged", "generator", "history")
        return {name: getattr(self, name) for name in names}

    def step(self) -> float:
        x = torch.randn(8, 4, generator=self.generator) + random.random() + numpy.random.rand()
        out = self.model(x).mean()
        loss = self.other(out.reshape(1, 1)).square().mean()
        for optimizer in (self.optimizer, *self.others):
            optimizer.zero_grad()
        loss.backward()
        for optimizer in (self.optimizer, *self.others):
            optimizer.step()
        self.schedule.step()
        self.averaged.update_parameters(self.model)
        self.history.append(loss.item())
        return loss.item()


def train(run: ActiveRun, parts: Parts, first: int, last: int, *, save: int) -> None:
    for step in range(first, last + 1):
        loss = parts.step()
        run.log({"loss": loss, "lr": parts.schedule.get_last_lr()[0]}, step=step)
        if step == save:
            best = min(parts.history)
            run.save(model=parts.model, optimizer=parts.optimizer, step=step, best=best, **parts.state())


def values(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "time"} for row in run.log().to_dicts()]


def test_a_resumed_loop_equals_one_that_never_stopped_in_every_bit() -> None:
    straight = Parts()
    with darkit.start_run("straight") as run:
        train(run, straight, 1, 20, save=10)
    cut = Parts()
    with pytest.raises(RuntimeError, match="power"), darkit.start_run("cut") as run:
        train(run, cut, 1, 15, save=10)
        raise RuntimeError("the power fails")
    resumed = Parts()
    for _ in range(3):
        resumed.step()  # what the new process did before must not matter
    resumed.history = []
    with darkit.start_run("cut", resume=True) as run:
        start = run.restore(model=resumed.model, optimizer=resumed.optimizer, **resumed.state())
        assert (start, run.step) == (10, 10)
        assert run.state["best"] == min(resumed.history)
        train(run, resumed, start + 1, 20, save=0)
    assert values(darkit.load("cut")) == values(darkit.load("straight"))
    for part in ("model", "other", "averaged"):
        wanted = getattr(straight, part).state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in getattr(resumed, part).state_dict().items())
    assert resumed.history == straight.history
    assert len(darkit.load("cut").info["continued"]) == 1


def test_a_row_that_was_lost_with_its_process_comes_back_with_its_checkpoint() -> None:
    with darkit.start_run("cut") as run:
        run.log({"loss": 1.0, "note": 'a, "b"', "n": 3, "none": None}, step=1)
        run.log({"loss": torch.tensor(2.0)}, step=2)
        run.save(step=2)
        run.log({"late": 1}, step=3)
    log = darkit.load("cut").path / "train_log.csv"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))  # as after kill -9
    with darkit.start_run("cut", resume=True) as run:
        run.log({"loss": 3.0}, step=3)
    with darkit.start_run("cut", resume="cut:iter-2-ckpt") as run:
        run.log({"loss": 4.0}, step=3)
    assert [(row["step"], row["loss"]) for row in values(darkit.load("cut"))] == [(1, 1.0), (2, 2.0), (3, 4.0)]


def test_a_loop_that_starts_before_where_it_resumes_is_refused() -> None:
    with darkit.start_run("cut") as run:
        run.log({"loss": 1.0}, step=5)
        run.save(step=5)
    with darkit.start_run("cut", resume=True) as run:
        with pytest.raises(LogError, match="resumes after step 5, so its loop must start at step 6, not 5"):
            run.log({"loss": 1.0}, step=5)
        run.log({"loss": 2.0})
        with pytest.raises(ConfigError, match=r"restore\(\) must be called before the first log"):
            run.restore()
    assert [row["step"] for row in values(darkit.load("cut"))] == [5, 6]


def test_auto_starts_what_does_not_exist_and_resumes_what_does() -> None:
    for first in (1, 4):
        model = nn.Linear(1, 1)
        with darkit.start_run("auto", resume="auto") as run:
            start = run.restore(model=model)
            assert start == first - 1
            assert (run.state == {}) == (first == 1)
            for step in range(start + 1, start + 4):
                run.log({"loss": float(step)}, step=step)
            run.save(model=model, epoch=step)
    assert [row["step"] for row in values(darkit.load("auto"))] == [1, 2, 3, 4, 5, 6]


def test_resuming_what_has_no_checkpoint_or_is_complete_is_refused() -> None:
    with darkit.start_run("mine") as run:
        run.log({"loss": 1.0})
    with pytest.raises(CheckpointNotFoundError):
        darkit.start_run("mine", resume=True)
    with darkit.start_run("mine", resume="auto") as run:
        run.log({"loss": 2.0})
        run.save()
    assert [row["loss"] for row in values(darkit.load("mine"))] == [2.0]
    with pytest.raises(
        ConfigError, match=r"at step 1 already\. To resume it, max_step must be larger than that, not 1"
    ):
        darkit.start_run("mine", resume=True, max_step=1)
    with darkit.start_run("mine", resume="auto", max_step=1):
        pass
    assert darkit.load("mine").status == "finished"


def test_settings_that_changed_are_told_and_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    with darkit.start_run("mine", config={"lr": 0.1, "depth": 4}) as run:
        run.save(step=1)
    with darkit.start_run("mine", config={"lr": 0.2, "depth": 4, "new": True}, resume=True):
        pass
    assert "Resuming run 'mine' from step 1. Changed: lr 0.1 -> 0.2, new None -> True." in capsys.readouterr().err
    found = darkit.load("mine")
    assert found.config == {"lr": 0.2, "depth": 4, "new": True}
    assert found.info["continued"][0]["changes"] == {"lr": [0.1, 0.2], "new": [None, True]}
    with darkit.start_run("mine", resume=True) as run:
        assert run.config == found.config


def test_another_run_may_start_from_the_weights_alone() -> None:
    model, fresh = nn.Linear(2, 1), nn.Linear(2, 1)
    with darkit.start_run("first") as run:
        run.save(model=model, optimizer=torch.optim.SGD(model.parameters()), step=7, epoch=3)
    with darkit.start_run("second", resume="first:iter-7-ckpt") as run:
        with pytest.raises(ConfigError, match="restores the model alone"):
            run.restore(model=fresh, optimizer=torch.optim.SGD(fresh.parameters()))
        torch.manual_seed(9)
        drawn = torch.rand(1)
        torch.manual_seed(9)
        assert run.restore(model=fresh) == 0
        assert torch.equal(torch.rand(1), drawn)
        run.log({"loss": 1.0}, step=0)
    assert torch.equal(fresh.weight, model.weight)
    assert len(darkit.load("first").info.get("continued", [])) == 0


def saved(**state: Any) -> None:
    model = nn.Linear(2, 1)
    with darkit.start_run("mine") as run:
        run.save(model=model, optimizer=torch.optim.SGD(model.parameters()), step=1, epoch=3, **state)


@pytest.mark.parametrize(
    ("wanted", "kind", "said"),
    [
        (lambda: {"model": nn.Linear(3, 1)}, CheckpointMismatchError, "'weight' has shape"),
        (lambda: {"model": nn.Sequential(nn.Linear(2, 1))}, CheckpointMismatchError, "'0.weight' is missing"),
        (lambda: {"optimizer": torch.optim.Adam([torch.ones(1)])}, CheckpointMismatchError, "another than this Adam"),
        (lambda: {"optimizer": torch.optim.SGD([torch.ones(1)])}, CheckpointMismatchError, "does not fit this SGD"),
        (lambda: {"scaler": torch.amp.GradScaler("cpu")}, CheckpointMismatchError, "of step 1 has no 'scaler'"),
        (lambda: {"epoch": 0}, ConfigError, "read it as run.state['epoch']"),
        (lambda: {"epoch": []}, CheckpointMismatchError, "a int as 'epoch', which does not fit this list"),
        (lambda: {"lin": 3}, CheckpointMismatchError, "state of lin does not fit this int"),
        (lambda: {"lin": nn.Linear(5, 1)}, CheckpointMismatchError, "'weight' has shape"),
        (lambda: {"model": 5}, Exception, "model must be a torch.nn.Module, not int"),
    ],
)
def test_what_does_not_fit_is_refused(wanted: Any, kind: type[Exception], said: str) -> None:
    saved(lin=nn.Linear(1, 1))
    with darkit.start_run("mine", resume=True) as run:
        with pytest.raises(kind) as refused:
            run.restore(**wanted())
        assert said in str(refused.value)


def test_what_is_saved_and_not_asked_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    saved(lin=nn.Linear(1, 1))
    with darkit.start_run("mine", resume=True) as run:
        run.restore(model=nn.Linear(2, 1))
    assert "Not restored, because restore() was not given it: optimizer, lin." in caplog.text


def test_plain_values_come_back_as_they_were() -> None:
    plain = {
        "numbers": [1, 2.5, True, None, "text", 3 + 4j],
        "tensor": torch.arange(3),
        "array": numpy.arange(4.0).reshape(2, 2),
        "scalar": numpy.float32(0.5),
        "nested": {"a": [{"b": (1, 2)}]},
        "empty": {},
    }
    with darkit.start_run("mine") as run:
        run.save(step=1, **plain)
        plain["numbers"].append("changed later")  # type: ignore[attr-defined]
        plain["tensor"].fill_(9)  # type: ignore[attr-defined]
    with darkit.start_run("mine", resume=True) as run:
        state, empty = run.state, {"was": "full"}
        assert run.restore(empty=empty) == 1
    assert empty == {}
    assert state["numbers"] == [1, 2.5, True, None, "text", 3 + 4j]
    assert state["tensor"].tolist() == [0, 1, 2]
    assert isinstance(state["array"], numpy.ndarray)
    assert state["array"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert state["scalar"] == 0.5
    assert state["nested"] == {"a": [{"b": (1, 2)}]}


def test_wrapped_models_are_saved_bare() -> None:
    model, other = nn.Linear(2, 1), nn.Linear(3, 1)
    with darkit.start_run("mine") as run:
        run.save(model=nn.DataParallel(model), other=torch.compile(other), step=1)
    bare, bare_other = nn.Linear(2, 1), nn.Linear(3, 1)
    with darkit.start_run("mine", resume=True) as run:
        run.restore(model=bare, other=bare_other)
    assert torch.equal(bare.weight, model.weight)
    assert torch.equal(bare_other.weight, other.weight)


def test_a_hostile_checkpoint_of_a_loop_is_only_data() -> None:
    saved()
    path = darkit.load("mine").latest_checkpoint().path  # type: ignore[union-attr]
    content = torch.load(path, weights_only=True)
    for loop in (3, [], {"states": 3, "values": [1], "row": {"step": 1, "a\nb": 1}}, {"row": {"step": 1, "x": [1]}}):
        content["loop"] = loop
        torch.save(content, path)
        path.with_suffix(".json").unlink(missing_ok=True)
        try:
            with darkit.start_run("mine", resume=True) as run:
                assert run.state == {}
        except LogError:
            assert isinstance(loop, dict)
