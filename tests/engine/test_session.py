"""What surrounds a training: folder, lock, status and log, and an end that is true however it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import darkit
from darkit.engine.config import TrainerConfig
from darkit.engine.description.exports import describe_model
from darkit.engine.session import Session
from darkit.errors import ConfigError, NameInvalidError, RunExistsError, RunLockedError, StorageError
from darkit.runs import Run, base, files
from darkit.runs.lock import is_locked
from darkit.runs.packages import installed_packages
from tests.engine.parts import made, run_names, train, xy
from tests.runs.parts import line_of, python


def opened(name: str | None = "a") -> Session:
    """A session that has begun."""
    config = TrainerConfig(name=name)
    session = Session.create(base(), config, "Some Model")
    session.describe(describe_model(made()), config, {"loss": ["step", "loss"]}, {"kind": "none"})
    session.begin(10)
    return session


def test_a_session_is_running_and_locked_until_it_ends() -> None:
    with opened() as session:
        run = Run(session.folder)
        assert (run.status, is_locked(run.path)) == ("running", True)
        session.step = 10
    assert (run.status, run.details.step, run.details.reason, is_locked(run.path)) == ("finished", 10, "", False)


def test_a_run_records_which_training_of_its_process_it_is() -> None:
    with opened("a") as one, opened(None) as other:
        assert other.number == one.number + 1
    assert Run(one.folder).info["training"] == {"number": one.number, "name": "a"}
    assert Run(other.folder).info["training"] == {"number": other.number, "name": None}


def test_a_generated_name_has_model_and_time_and_a_number_if_it_exists() -> None:
    names = []
    for _ in range(4):
        with opened(name=None) as session:
            names.append(session.folder.name)
    assert len(set(names)) == 4
    assert all(name.startswith("some-model-2") for name in names)


def test_generated_names_of_fit_name_the_model_and_never_collide() -> None:
    names = {train(made(), xy(), max_step=1).name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("mlp-2") for name in names)


def test_a_session_leaves_nothing_in_the_environment() -> None:
    before = dict(os.environ)
    with opened(name=None):
        pass
    assert dict(os.environ) == before


def test_an_exception_is_a_crash_with_reason_and_traceback_and_goes_on() -> None:
    def failing() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError), opened() as session:
        session.step = 3
        failing()
    details = Run(session.folder).details
    assert (details.state, details.step, details.reason) == ("crashed", 3, "ZeroDivisionError: mine")
    assert "in failing" in details.traceback


def test_ctrl_c_is_a_stop() -> None:
    with pytest.raises(KeyboardInterrupt), opened() as session:
        session.step = 1
        raise KeyboardInterrupt
    assert (Run(session.folder).status, Run(session.folder).details.traceback) == ("stopped", "")


@pytest.mark.parametrize("error", [None, ZeroDivisionError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_however_it_ends_no_row_is_lost(error: BaseException | None) -> None:
    session = opened()
    try:
        with session:
            assert session.stream is not None
            for step in range(50):
                session.stream.put({"step": step, "train_loss": torch.tensor(1.0)})
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error  # noqa: PT017
    assert Run(session.folder).log()["step"].to_list() == list(range(50))


@pytest.mark.parametrize("error", [ConfigError("wrong"), ZeroDivisionError(), KeyboardInterrupt(), SystemExit(3)])
def test_any_error_before_the_first_step_leaves_nothing_and_after_it_a_run(error: BaseException) -> None:
    with pytest.raises(type(error)), opened("first"):
        raise error
    with pytest.raises(type(error)), opened("second") as session:
        session.step = 1
        raise error
    assert run_names() == ["second"]
    assert Run(base() / "second").status == ("stopped" if isinstance(error, KeyboardInterrupt) else "crashed")


def test_a_forked_child_that_leaves_by_an_error_changes_nothing() -> None:
    with opened() as session:
        assert session.stream is not None
        assert session.writer is not None
        session.stream.put({"step": 1, "train_loss": 0.5})
        session.guard.install()
        child = os.fork()
        if not child:
            try:
                session.stream.put({"step": 2, "train_loss": 0.5})
                session.stream.flush()
                session.writer.save(2, {"state_dict": {}}, {})
                session.end(SystemExit(3))
            finally:
                os._exit(signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)
        assert os.waitpid(child, 0)[1] == 0
        run = Run(session.folder)
        assert (run.status, run.details.pid) == ("running", os.getpid())
        session.step = 1
    assert run.log()["step"].to_list() == [1]
    assert (run.status, run.checkpoints()) == ("finished", [])


def test_an_end_after_the_end_does_nothing() -> None:
    session = opened()
    session.end()
    session.end(ValueError("late"))
    assert Run(session.folder).status == "finished"


def test_an_existing_name_is_refused_and_not_a_byte_of_the_old_run_changes() -> None:
    run = train(made(), xy(), name="taken")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RunExistsError, match="A run 'taken' already exists"):
        train(made(), xy(), name="taken")
    with pytest.raises(RunExistsError):
        train(made(), xy(), name="taken", max_step=99, tensorboard=True)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}
    assert after == before
    assert run_names() == ["taken"]


def test_a_file_in_the_place_of_the_run_is_refused_and_stays() -> None:
    base().mkdir(parents=True)
    (base() / "file").write_text("mine")
    with pytest.raises(RunExistsError):
        train(made(), xy(), name="file")
    assert (base() / "file").read_text() == "mine"


def test_a_link_in_the_place_of_the_run_is_refused_and_what_it_points_to_stays(tmp_path: Path) -> None:
    base().mkdir(parents=True)
    target = tmp_path / "elsewhere"
    target.mkdir()
    (base() / "link").symlink_to(target)
    (base() / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(NameInvalidError, match="symbolic link"):
            train(made(), xy(), name=name)
    assert list(target.iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["mine", None])
@pytest.mark.parametrize("place", ["home", "base"])
def test_a_file_in_the_place_of_the_home_is_one_clear_error(home: Path, name: str | None, place: str) -> None:
    if place == "home":
        home.write_text("a file")
    else:
        home.mkdir()
        (home / "base").write_text("a file")
    with pytest.raises(StorageError) as caught:
        train(made(), xy(), name=name)
    assert str(home) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (home if place == "home" else home / "base").read_text() == "a file"


@pytest.mark.parametrize("name", ["mine", None])
def test_a_home_where_nothing_can_be_made_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", "/dev/null/darkit")
    with pytest.raises(StorageError, match="/dev/null/darkit/base"):
        train(made(), xy(), name=name)


def test_a_run_that_another_process_trains_cannot_be_resumed(home: Path) -> None:
    run = train(made(), xy(), name="busy", max_step=2)
    code = (
        "import sys\nfrom pathlib import Path\nfrom darkit.runs.lock import RunLock\n"
        f"lock = RunLock(Path({str(run.path)!r}))\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = (run.path / "status.json").read_bytes()
        with pytest.raises(RunLockedError, match="'busy' is already being trained"):
            train(made(), xy(), resume="busy", max_step=4)
        assert (run.path / "status.json").read_bytes() == before
    finally:
        holder.communicate()
    assert train(made(), xy(), resume="busy", max_step=4).status == "finished"


def test_run_json_records_the_origin_of_the_run() -> None:
    run = train(made(), xy(), name="told", seed=7, visual_series={"mine": ["epoch", "train_loss"]})
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["name"] == "told"
    assert facts["seed"] == 7
    assert facts["series"] == {"mine": ["epoch", "train_loss"]}
    assert facts["model"]["class"].endswith(".MLP")
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["command"][0] == sys.executable
    assert facts["host"]["name"]
    assert facts["created"] <= run.log()["time"][0]
    assert len(facts["id"]) == 32
    assert all(checkpoint.metrics for checkpoint in run.checkpoints())


def test_a_log_that_cannot_be_completed_makes_the_run_a_crash_with_the_cause(tmp_path: Path) -> None:
    class Full:
        def write(self, rows: Any) -> None:
            if rows:
                raise StorageError(28, "Cannot write the events: no space left.")

        def close(self) -> None: ...

    session = opened()
    session.begin(10, None, lambda: [Full()])
    with pytest.raises(StorageError, match="no space left"), session:
        assert session.stream is not None
        session.stream.put({"step": 1})
    details = Run(session.folder).details
    assert details.state == "crashed"
    assert "no space left" in details.reason


def test_a_handle_answers_without_torch(home: Path) -> None:
    train(made(), xy(), name="read")
    code = (
        "import sys, darkit\nrun = darkit.load('read')\n"
        "assert (run.status, run.log().height, run.latest_checkpoint().step) == ('finished', 6, 6)\n"
        "assert [r.name for r in darkit.runs()] == ['read']\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_fit_returns_the_handle_that_load_finds() -> None:
    run = train(made(), xy(), name="found")
    assert run == darkit.load("found")
    assert darkit.runs() == [run]
    assert (run.name, run.path, run.status) == ("found", base() / "found", "finished")
    assert run.latest_checkpoint() == run.checkpoints()[-1]


def test_a_status_that_cannot_be_written_does_not_hide_what_went_wrong_before() -> None:
    with pytest.raises(ZeroDivisionError) as raised, opened() as session:
        (session.folder / "status.json").unlink()
        (session.folder / "status.json").mkdir()
        raise ZeroDivisionError
    assert any(note.startswith("The status could not be completed either: Cannot") for note in raised.value.__notes__)
    assert not is_locked(session.folder)


def test_a_status_that_cannot_be_written_is_an_error_where_nothing_else_went_wrong() -> None:
    with pytest.raises(StorageError, match=r"status\.json"), opened() as session:
        (session.folder / "status.json").unlink()
        (session.folder / "status.json").mkdir()
    assert not is_locked(session.folder)


def test_a_signal_while_the_end_is_being_written_does_not_cut_it_off(home: Path) -> None:
    script = """
        import os, signal
        from tests.engine.test_session import opened

        class Last:
            def write(self, rows):
                pass

            def close(self):
                os.kill(os.getpid(), signal.SIGTERM)

        with opened() as session:
            session.stream.add([Last()])
            session.guard.install()
            session.step = 10
        print(session.guard.request.reason, flush=True)
        session.guard.request.end_process()
    """
    with python(script) as process:
        assert line_of(process) == "Stopped by SIGTERM."
        assert process.wait(60) == 143
    assert (darkit.load("a").status, darkit.load("a").details.step) == ("finished", 10)


@pytest.mark.parametrize("part", ["checkpoint", "sink"])
def test_an_interrupt_while_one_part_is_closed_closes_the_others(part: str) -> None:
    class Interrupted:
        def write(self, rows: Any) -> None:
            pass

        def close(self) -> None:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    session = opened()
    assert session.stream is not None
    assert session.writer is not None
    if part == "sink":
        session.stream.add([Interrupted()])
    else:
        session.writer.close = Interrupted().close  # type: ignore[method-assign]
    session.step = 10
    session.stream.put({"step": 10, "train_loss": 0.5})
    with pytest.raises(KeyboardInterrupt):
        session.end()
    run = Run(session.folder)
    assert (run.status, run.details.reason) == ("stopped", "Interrupted from the keyboard.")
    assert run.log()["step"].to_list() == [10]
    assert not is_locked(run.path)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not left & {"darkit-log", "darkit-status"}


def test_an_interrupt_after_an_error_is_a_note_on_it() -> None:
    session = opened()
    assert session.writer is not None
    session.writer.close = lambda: signal.raise_signal(signal.SIGINT)  # type: ignore[method-assign]
    session.step = 3
    error = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError), session:
        raise error
    assert error.__notes__ == ["The checkpoint could not be completed either: KeyboardInterrupt"]
    assert Run(session.folder).details.reason == "ZeroDivisionError: mine"


def test_a_run_keeps_the_versions_of_all_packages_and_a_resumed_one_those_that_differ(home: Path) -> None:
    run = train(made(), xy(), max_step=2, name="one")
    kept = run.environment
    assert kept["packages"] == installed_packages()
    assert set(kept) == {"packages", "files", "left_out"}
    assert "environment" not in run.info
    kept["packages"]["numpy"] = "0.1"
    kept["packages"]["gone"] = "1.0"
    files.write_json(run.path / files.ENVIRONMENT, kept)
    train(made(), xy(), max_step=4, resume="one")
    (told,) = run.info["continued"]
    assert told["packages"] == {"gone": ["1.0", None], "numpy": ["0.1", installed_packages()["numpy"]]}
    assert run.environment == kept, "which tells of the start"
    (run.path / files.ENVIRONMENT).unlink()  # as of a run from before
    assert run.environment == {}
    train(made(), xy(), max_step=6, resume="one")
    assert run.info["continued"][1]["packages"] == {}
