"""What a loop logs through accelerate is a run: in one process, in several, and when it is asked to stop."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import nn

import darkit
from darkit.core import Predicter
from darkit.errors import ConfigError
from darkit.integrations.accelerate import RunTracker, should_stop
from darkit.runs.media import read_media
from darkit.runs.requests import request_stop
from tests.children import Zygote, torchrun


@pytest.fixture(autouse=True)
def accelerators() -> Iterator[None]:
    """Accelerate keeps its state for the process."""
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


def test_a_loop_with_accelerate_is_a_run(home: Path) -> None:
    model = nn.Linear(2, 1)
    accelerator = Accelerator(log_with=[RunTracker("mine", model=model, max_step=4)], cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    accelerator.init_trackers("a project", config={"lr": 0.1, "sizes": [2, 1]})
    losses = []
    for step in range(1, 5):
        loss = prepared(torch.ones(3, 2)).pow(2).mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
        accelerator.log({"loss": loss.detach(), "phase": "train"}, step=step)
    accelerator.get_tracker("darkit", unwrap=True).save(model=prepared, optimizer=optimizer)
    accelerator.end_training()
    run = darkit.load("mine")
    assert run.log()["loss"].to_list() == losses
    assert run.log()["phase"].to_list() == ["train"] * 4
    assert run.config == {"lr": 0.1, "sizes": [2, 1]}
    assert (run.details.state, run.details.step, run.details.max_step) == ("finished", 4, 4)
    assert run.info["trainer"] == "accelerate"
    predicted = Predicter.from_pretrained("mine", "cpu").predict(torch.ones(1, 2))
    assert torch.equal(predicted, model(torch.ones(1, 2)))


def test_images_and_tables_become_media(home: Path) -> None:
    accelerator = Accelerator(log_with=[RunTracker("mine")], cpu=True)
    accelerator.init_trackers("a project")
    tracker = accelerator.get_tracker("darkit")
    tracker.log_images({"several": numpy.zeros((2, 4, 5, 3), numpy.uint8), "one": numpy.zeros((4, 5))}, step=1)
    tracker.log_table("answers", ["word", "count"], [["sea", 3]], step=1)
    accelerator.end_training()
    found = read_media(darkit.load("mine").path)
    assert [(one.key, one.kind, one.step) for one in found] == [
        ("several/0", "image", 1),
        ("several/1", "image", 1),
        ("one", "image", 1),
        ("answers", "table", 1),
    ]


def test_a_resumed_tracker_restores_what_was_saved(home: Path) -> None:
    def train(first: int, last: int, **settings: Any) -> nn.Module:
        model = nn.Linear(2, 1)
        accelerator = Accelerator(log_with=[RunTracker("mine", **settings)], cpu=True)
        accelerator.init_trackers("a project", config={"lr": 0.1})
        run = accelerator.get_tracker("darkit", unwrap=True)
        assert run.restore(model=model) == first - 1
        for step in range(first, last + 1):
            accelerator.log({"loss": 1 / step}, step=step)
            run.save(model=model)
        accelerator.end_training()
        return model

    before = train(1, 3)
    after = train(4, 5, resume="auto")
    assert torch.equal(before.weight, after.weight)  # type: ignore[arg-type]
    assert darkit.load("mine").log()["step"].to_list() == [1, 2, 3, 4, 5]


def test_a_request_to_stop_is_seen_and_recorded(home: Path) -> None:
    accelerator = Accelerator(log_with=[RunTracker("mine", max_step=9)], cpu=True)
    accelerator.init_trackers("a project")
    accelerator.log({"loss": 1.0}, step=1)
    assert not should_stop(accelerator)
    request_stop(darkit.load("mine").path, by="a test")
    deadline = time.monotonic() + 60
    while not should_stop(accelerator):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    accelerator.end_training()
    assert darkit.load("mine").status == "stopped"


def test_settings_of_other_trackers_and_a_run_before_its_start_are_refused(home: Path) -> None:
    tracker = RunTracker("mine")
    with pytest.raises(ConfigError, match="The run is not open"):
        tracker.tracker  # noqa: B018 - the property raises
    accelerator = Accelerator(log_with=[tracker], cpu=True)
    accelerator.init_trackers("a project")
    with pytest.raises(ConfigError, match="no setting 'commit'"):
        accelerator.log({"loss": 1.0}, log_kwargs={"darkit": {"commit": False}})
    accelerator.end_training()


def test_in_two_processes_the_main_one_writes_and_both_see_the_request(
    zygote: Zygote, home: Path, tmp_path: Path
) -> None:
    code = """
    import time, darkit
    from accelerate import Accelerator
    from darkit.integrations.accelerate import RunTracker, should_stop
    from darkit.runs.requests import request_stop
    accelerator = Accelerator(log_with=[RunTracker("mine")], cpu=True)
    accelerator.init_trackers("a project", config={"lr": 0.1})
    for step in range(1, 2000):
        accelerator.log({"loss": 1 / step}, step=step)
        if step == 3 and accelerator.is_main_process:
            request_stop(darkit.load("mine").path, by="a test")
        time.sleep(0.01)
        if should_stop(accelerator):
            break
    print("rank", accelerator.process_index, "ended at", step, flush=True)
    accelerator.end_training()
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(code))
    output = torchrun(zygote, home, str(path))
    ends = sorted(line for line in output.splitlines() if line.startswith("rank "))
    assert [end.rpartition(" ")[0] for end in ends] == ["rank 0 ended at", "rank 1 ended at"]
    last = {int(end.rpartition(" ")[2]) for end in ends}
    assert len(last) == 1
    run = darkit.load("mine")
    assert run.log()["step"].to_list() == list(range(1, last.pop() + 1))
    assert run.status == "stopped"
