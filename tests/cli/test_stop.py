"""``darkit stop``: leaves a request, and waits for what becomes of it."""

from __future__ import annotations

import json
import threading
from typing import Any

import lightning
import pytest

import darkit
from darkit.cli.main import main
from darkit.runs import base, files
from darkit.runs.lock import RunLock
from darkit.runs.requests import read_stop
from tests.cli.parts import refused
from tests.engine.parts import made, train, xy
from tests.runs.parts import wait_until


class Slow(lightning.Callback):
    """Goes on only when it may, so that the run is there when it is asked to stop."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.started = threading.Event()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.started.set()
        if not self.asked.is_set():
            wait_until(lambda: pl_module.trainer.should_stop or bool(guard(trainer).request.reason))
            self.asked.set()


def guard(trainer: Any) -> Any:
    return next(callback.guard for callback in trainer.callbacks if hasattr(callback, "guard"))


@pytest.mark.parametrize("wait", [True, False])
def test_a_run_saves_and_ends_as_stopped_and_the_command_waits_for_it(
    wait: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, codes = Slow(), []

    def stop() -> None:
        assert slow.started.wait(60)
        codes.append(main(["stop", "run", *([] if wait else ["--no-wait"])]))

    asker = threading.Thread(target=stop)
    asker.start()
    run = train(made(), xy(), name="run", max_step=10**6, callbacks=[slow])
    asker.join()
    details = run.details
    assert codes == [0]
    assert (details.state, details.reason) == ("stopped", "Stopped by darkit stop.")
    assert details.step < 1000
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [details.step]
    assert run.log()["step"][-1] == details.step
    assert not (run.path / files.STOP).exists()
    said = f"run is stopped at step {details.step}.\n" if wait else "Asked run to stop.\n"
    assert capsys.readouterr().out.endswith(said)
    assert train(made(), xy(), name="run", resume=True, max_step=details.step + 2).status == "finished"


@pytest.mark.parametrize("state", ["finished", "stopped", "crashed"])
def test_a_run_that_does_not_train_is_refused_and_gets_no_request(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = base() / "run"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": state}))
    assert refused(capsys, "stop", "run") == f"The run 'run' is not running ({state})."
    assert read_stop(folder) is None
    assert "There is no run 'nope'" in refused(capsys, "stop", "nope")


def test_a_run_that_does_not_hear_is_waited_for_no_longer_than_asked_and_the_request_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = base() / "run"
    folder.mkdir(parents=True)
    lock = RunLock(folder)
    assert darkit.load("run").status == "running"
    assert main(["stop", "run", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().out == "run has not stopped after 0.2 s; the request stays.\n"
    assert read_stop(folder) is not None
    lock.release()


def test_a_request_that_is_older_than_the_training_does_not_stop_it() -> None:
    train(made(), xy(), name="run", max_step=2)
    files.write_json(base() / "run" / files.STOP, {"by": "yesterday"})
    run = train(made(), xy(), name="run", resume=True, max_step=4)
    assert (run.status, run.details.step) == ("finished", 4)
    assert not (run.path / files.STOP).exists()
