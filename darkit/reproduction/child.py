"""What is different in the process that repeats a run: where code comes from, where it starts and where it stops."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from darkit.engine import fork, native_training, training
from darkit.engine.config import TrainerConfig
from darkit.engine.resume import Resume
from darkit.engine.session import Session
from darkit.engine.stop import StopTraining
from darkit.reproduction.repeating import Plan
from darkit.runs.untracked import imported_files

_REASON = "Stopped by darkit reproduce."
_WAYS_OUT = (KeyboardInterrupt, SystemExit, StopTraining)


def prepare(plan: Plan) -> None:
    """Have this process repeat a run as planned."""
    if plan.top != plan.original:
        sys.path[:] = [restored(entry, plan) for entry in sys.path]
    if plan.start is not None:
        _start_from(plan)
    _stop_at(plan)
    if plan.seed is not None:
        torch.manual_seed(plan.seed)


def restored(path: str, plan: Plan) -> str:
    """Return where a path of the original repository is in the restored code; others as they are."""
    if "site-packages" in path or "dist-packages" in path or not Path(path).is_absolute():
        return path
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(plan.original))
    found = Path(plan.top, inside)
    return path if inside.startswith("..") or not found.exists() else str(found)


def write_report(plan: Plan, run: str = "") -> None:
    """Write which files were imported from the original repository, apart from darkit itself, and the run's name."""
    live = imported_files(Path(plan.original)) if plan.top != plan.original else []
    own = os.path.relpath(Path(fork.__file__).resolve().parents[1], os.path.realpath(plan.original))
    found = [name for name in live if not name.startswith(own + os.sep)]
    Path(plan.report).write_text(json.dumps({"live": found, "run": run}), encoding="utf-8")


def _start_from(plan: Plan) -> None:
    """Have the planned training, or the first one of the run's name, resume from the planned checkpoint."""
    original = fork.find_start

    def find_start(root: Path, config: TrainerConfig, resume: Any, forked: str | None) -> Resume | None:
        is_unknown = plan.number is None and config.name is None
        if not (is_unknown or _is_planned(config.name, Session.begun + 1, plan)):
            return original(root, config, resume, forked)
        config.name = plan.name
        return original(root, config, f"{plan.name}:{plan.start}", None)

    for module in (fork, training, native_training):
        vars(module)["find_start"] = find_start


def _is_planned(name: str | None, number: int, plan: Plan) -> bool:
    """Return whether a training has the planned name or, where the script makes another one each time, the number."""
    if name is not None and name in (plan.name, plan.given):
        return True
    return number == plan.number and name not in plan.others


def _stop_at(plan: Plan) -> None:
    """Have the planned training stop at the last planned step, and end the process when it ends.

    Those before it are repeated whole: what they draw is what it begins with. Where it is not recorded which one it is,
    all of them stop, and so do those from its number on that have another run's name: the planned one may follow.
    """
    end = Session.end

    def is_planned(session: Session) -> bool:
        return _is_planned(session.given_name or session.folder.name, session.number, plan)

    def set_step(self: Session, step: int) -> None:
        vars(self)["step"] = step
        if step < plan.last or "guard" not in vars(self):
            return
        if plan.number is None or self.number >= plan.number or is_planned(self):
            self.guard.request.ask(_REASON)

    def end_all(self: Session, error: BaseException | None = None) -> None:
        end(self, error)
        ended_well = error is None or (isinstance(error, _WAYS_OUT) and self.guard.request.reason == _REASON)
        if self.writes and ended_well and is_planned(self):
            write_report(plan, self.folder.name)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # what the script does with the model then is not part of the training

    hooked: Any = Session
    hooked.step = property(lambda self: vars(self)["step"], set_step)
    hooked.end = end_all
