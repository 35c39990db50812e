"""``darkit verify-resume``: whether a run resumes from a checkpoint bit for bit."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.errors import ConfigError
from darkit.runs import Run, load
from darkit.runs.child import environment, python_module

_EXAMPLES = """\
  darkit verify-resume                                     the default run, shortened to 60 steps
  darkit verify-resume model=mymodel trainer.max_step=200
  darkit verify-resume model=theirs data=mine trainer.num_workers=2 --kills 5
"""
_POLL = 0.01  # seconds
_OUTPUT = "output.txt"
_STRAIGHT, _BROKEN = "straight", "broken"


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "verify-resume",
        run,
        "train straight through, and killed and resumed, and compare the two",
        _EXAMPLES,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for darkit train")
    parser.add_argument("--kills", type=int, default=3, help="how often to kill it (default: 3)")
    parser.add_argument("--seed", type=int, help="seed of the moments at which it is killed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep both runs in this folder, a new one")


def run(arguments: argparse.Namespace) -> int:
    """Train twice and compare; return 0 when nothing differs.

    Raises:
        ConfigError: The kept folder exists, or there is nothing to kill.
    """
    if arguments.kills < 1:
        raise ConfigError(f"--kills must be at least 1, not {arguments.kills}.")
    if arguments.keep is not None and arguments.keep.exists():
        raise ConfigError(f"The folder {arguments.keep} already exists. Choose a new one.")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="darkit-verify-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _verify(folder.absolute(), _with_defaults(arguments.overrides), arguments.kills, arguments.seed)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)


def _verify(folder: Path, overrides: list[str], kills: int, seed: int | None) -> int:
    from darkit.engine.checkpoints.difference import first_difference

    trial = _Trial(folder, overrides)
    say("Training straight through ...")
    trial.finish(_STRAIGHT)
    straight = trial.run_of(_STRAIGHT)
    last = straight.details.step
    interval = trial.make_checkpoints_frequent(straight)
    first = min(interval + 1, last)
    chosen = random.Random(seed)  # noqa: S311 - moments, not secrets
    killed = 0
    for step in sorted(chosen.randint(first, last) for _ in range(kills)):
        reached = trial.kill_after(_BROKEN, step)
        if reached is None:
            break
        killed += 1
        say(f"Killed after step {reached}; resuming from its last checkpoint ...")
    trial.finish(_BROKEN)
    if not killed:
        say("It finished before it could be killed: nothing was verified. More steps (trainer.max_step) may help.")
        return 1
    difference = first_difference(straight, trial.run_of(_BROKEN), trial.record(_STRAIGHT), trial.record(_BROKEN))
    if difference:
        say(f"DIFFERENT: {difference}")
        return 1
    say(
        f"EQUAL: after {killed} kills, weights, optimizer, schedule, generators, batches and log of all {last} steps "
        "are the same bit for bit."
    )
    return 0


class _Trial:
    """Trainings in processes of their own, below a home of their own."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder = folder
        self.overrides = overrides
        self.environment = environment({"DARWIN_KIT_HOME": str(folder)})

    def record(self, name: str) -> Path:
        """Return where the digests of a run's batches are."""
        return self.folder / f"{name}-batches.csv"

    def run_of(self, name: str) -> Run:
        return load(name, root=self.folder / "base")

    def make_checkpoints_frequent(self, straight: Run) -> int:
        """Let the run that is killed save often enough to be resumed; return the interval in steps."""
        every, last = int(straight.trainer_config["save_step_interval"]), straight.details.step
        if not 0 < every < last:
            every = max(1, last // 10)
            self.overrides = [*self.overrides, f"trainer.save_step_interval={every}"]
        return every

    def finish(self, name: str) -> None:
        """Train a run to its end. Raises `ConfigError` with what it said when it fails."""
        process = self._start(name)
        if process.wait():
            output = (self.folder / _OUTPUT).read_text("utf-8", "replace")
            said = output.strip().splitlines()[-1:] or ["nothing"]
            raise ConfigError(f"The training failed with exit code {process.returncode} and said: {said[0]}")

    def kill_after(self, name: str, step: int) -> int | None:
        """Train until a step is completed, then kill everything; return the step reached, or None if it finished.

        A training whose steps are faster than its saves lives until it has a checkpoint to resume from.
        """
        process = self._start(name)
        while process.poll() is None:
            reached = self._step(name)
            if reached >= step and self._has_checkpoint(name):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return reached
            time.sleep(_POLL)
        if process.returncode:
            self.finish(name)  # says why
        return None

    def _step(self, name: str) -> int:
        from darkit.runs import files
        from darkit.runs.log import last_values

        values = last_values(self.folder / "base" / name / files.LOG)
        return int(float(values.get("step") or 0))

    def _has_checkpoint(self, name: str) -> bool:
        from darkit.runs.checkpoints import list_checkpoints

        return any(one.verified for one in list_checkpoints(self.folder / "base" / name))

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        resumed = (self.folder / "base" / name).exists()
        which = f"resume={name}" if resumed else f"name={name}"
        command = python_module("darkit.cli.verify_child", str(self.record(name)), *self.overrides, which)
        with (self.folder / _OUTPUT).open("wb") as output:  # a full pipe without a reader would block it
            return subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )


def _with_defaults(overrides: list[str]) -> list[str]:
    """Shorten the default run, and log every step, because the comparison is by steps."""
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    shorter = [] if given & {"trainer.max_step", "experiment"} else ["trainer.max_step=60"]
    logged = [] if "trainer.log_step_interval" in given else ["trainer.log_step_interval=1"]
    return [*shorter, *logged, *overrides]
