"""The repetition of a run in a child process: what it needs in a home of its own, and where it ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darkit.errors import CheckpointNotFoundError, ConfigError, RunNotFoundError
from darkit.reproduction.code import RestoredCode
from darkit.reproduction.command import TRAIN, Command
from darkit.runs import Run, files, load
from darkit.runs.checkpoints import Checkpoint, find_checkpoint, manifest_path
from darkit.runs.child import environment, python_module
from darkit.runs.home import home
from darkit.runs.inert import inert
from darkit.runs.run import list_runs
from darkit.runs.safe import as_dict
from darkit.runs.status import FINISHED, STOPPED

_CACHES = ("tokenizers", "data")  # folders of a home that any run would make again
_LEFT = ("iter-*", files.TENSORBOARD, files.MEDIA, files.LOCK, files.CONSOLE, files.STATUS, ".*")
_SHOWN = 3  # lines of what a failed process said


@dataclass(frozen=True)
class Plan:
    """What the child process does.

    Attributes:
        command: What it runs.
        name: The run's name.
        last: The step at which it stops.
        start: The name of the checkpoint to start from, or None.
        original: The repository's folder.
        top: The folder with the restored code.
        seed: What torch's generators began with in the process of the run, or None; nobody seeds a model that is made
            before the training.
        report: The file into which it writes what it imported from the repository itself.
        number: Which training of its process the run is, or None for ``darkit train`` and where that is not recorded.
        given: The name that the script gave to the run, or None where it was generated or is not recorded.
        others: The names of all other runs: what has one of them may be another of the script's trainings.
    """

    command: Command
    name: str
    last: int
    start: str | None
    original: str
    top: str
    seed: int | None
    report: str
    number: int | None = None
    given: str | None = None
    others: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({**vars(self), "command": vars(self.command)}), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plan = cls(**content)
        own: dict[str, Any] = content["command"]
        command = Command(own["kind"], own["what"], tuple(own["words"]), tuple(own["flags"]))
        return replace(plan, command=command, others=tuple(content["others"]))


def starting_point(run: Run, wanted: str | None) -> tuple[Checkpoint | None, int]:
    """Return the checkpoint that a repetition starts from, or None, and the step before its first one.

    A fork without ``wanted`` starts where it began.

    Raises:
        ConfigError: The run's loop cannot be started from a checkpoint.
        CheckpointNotFoundError: The checkpoint is missing.
        CheckpointCorruptError: It is damaged.
    """
    if wanted is not None:
        checkpoint = _own_checkpoint(run, wanted)
        return checkpoint, checkpoint.step
    fork = run.fork
    if not fork:
        return None, 0
    name, digest = str(fork.get("checkpoint")), fork.get("sha256")
    folders = [run.path]
    with suppress(RunNotFoundError, ValueError):
        folders.append(load(str(fork.get("parent"))).path)
    for folder in folders:
        with suppress(CheckpointNotFoundError):
            found = find_checkpoint(folder, name)
            if found.sha256 == digest:
                return found, found.step
    raise CheckpointNotFoundError(
        f"The checkpoint {inert(fork.get('parent'))}:{inert(name)} that {run.name!r} was forked from is gone: choose a "
        "checkpoint of its own with --from."
    )


def _own_checkpoint(run: Run, wanted: str) -> Checkpoint:
    """Return a checkpoint that a loop of darkit continues from. Raises `ConfigError` for any other loop's."""
    from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
    from darkit.engine.native.state import KEY

    loop = "made by darkit.start_run" if run.has_own_loop else ""
    if not loop:
        if "lightning" in run.trainer_config and "seed" not in run.trainer_config:  # a RunRecorder seeds nothing
            loop = "trained by a lightning.Trainer of its script"
        else:
            checkpoint, content = read_run_checkpoint(run.path, wanted)
            if "position" in content or KEY in content:
                return checkpoint
            loop = "trained by a hand-written loop"
    raise ConfigError(f"The run {run.name!r} was {loop}, which restores its state itself: leave out --from.")


def repeat(
    run: Run, command: Command, code: RestoredCode, start: Checkpoint | None, last: int, where: Path, child: str
) -> Run:
    """Run the first steps of a run again in a child process.

    Args:
        run: The run.
        command: What to run.
        code: Its restored code.
        start: The checkpoint to start from, or None.
        last: The step at which the repetition stops.
        where: A folder for a darkit home and what the process says.
        child: The module that the process runs, with the plan's file as its argument.

    Raises:
        ConfigError: The process failed or made no run.
    """
    base = where / "home" / "base"
    base.mkdir(parents=True, exist_ok=True)
    for cache in _CACHES:
        if (home() / cache).is_dir():
            (where / "home" / cache).symlink_to(home() / cache)
    if start is not None:
        _copy_run(run, base / run.name, start)
    seed, given = run.info.get("initial_seed"), as_dict(run.info.get("training")).get("name")
    given = given if isinstance(given, str) else None
    plan = Plan(
        command,
        run.name,
        last,
        start=None if start is None else start.name,
        original=str(code.original),
        top=str(code.top),
        seed=seed if isinstance(seed, int) and 0 <= seed < 2**64 else None,
        report=str(where / "report.json"),
        number=training_number(run) if command.kind != TRAIN else None,
        given=given,
        others=tuple(one.name for one in run.path.parent.iterdir() if one.name not in (run.name, given)),
    )
    plan.write(where / "plan.json")
    words = python_module(child, str(where / "plan.json"), flags=command.flags)
    output = where / "output.txt"
    with output.open("wb") as said:  # a full pipe without a reader would block it
        done = subprocess.run(
            words,
            cwd=code.folder,
            env=environment({"DARWIN_KIT_HOME": str(where / "home")}),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
        )
    repeated = _find(base, run, plan)
    if repeated is None or repeated.details.state not in (FINISHED, STOPPED):  # what a script does later may fail
        lines = output.read_text("utf-8", "replace").strip().splitlines()[-_SHOWN:] or ["nothing"]
        what = f"failed with exit code {done.returncode}" if done.returncode else "made no such run"
        raise ConfigError(f"The repetition of run {run.name!r} {what} and said: {inert(' | '.join(lines))}")
    return repeated


def imported_live(where: Path) -> list[str]:
    """Return the files that the child imported from the repository itself and not from the restored code."""
    found = files.read_json(where / "report.json").get("live")
    return [str(name) for name in found] if isinstance(found, list) else []


def link_run(name: str, where: Path) -> None:
    """Put a run of this home whose weights a repetition starts from into its home. Raises `RunNotFoundError`."""
    source = load(name)
    target = where / "home" / "base" / source.name
    shutil.copytree(source.path, target, symlinks=True, ignore=shutil.ignore_patterns(files.LOCK, files.TENSORBOARD))


def _copy_run(run: Run, target: Path, start: Checkpoint) -> None:
    shutil.copytree(run.path, target, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT))
    if start.is_folder:
        shutil.copytree(start.path, target / start.path.name)
    else:
        try:
            os.link(start.path, target / start.path.name)
        except OSError:  # on another file system
            shutil.copyfile(start.path, target / start.path.name)
    if manifest_path(start.path).exists():
        shutil.copyfile(manifest_path(start.path), manifest_path(target / start.path.name))


def training_number(run: Run) -> int | None:
    """Return which training of its process a run was, counted from 1, or None where that is not recorded."""
    number = as_dict(run.info.get("training")).get("number")
    return number if type(number) is int and number > 0 else None


def _find(base: Path, run: Run, plan: Plan) -> Run | None:
    """Return the repetition: the planned training or the one of its name or number, or the only one of its class.

    Raises:
        ConfigError: Nothing says which of several it is.
    """
    reported = str(files.read_json(Path(plan.report)).get("run") or "")
    for name in (reported, run.name):
        if name and (base / name / files.RUN).exists():
            return Run(base / name)
    made = list_runs(root=base)
    if plan.number is not None:
        return next((one for one in made if training_number(one) == plan.number), None)
    if plan.given is not None:
        return None
    kind = run.model_class.split(".")[-1]
    made = [one for one in made if one.model_class.split(".")[-1] == kind]
    if len(made) > 1:
        raise ConfigError(
            f"The run {run.name!r} does not record which of the {len(made)} trainings of its script it is, and none of "
            "them has its name: give each a name=."
        )
    return made[0] if made else None
