"""The process of ``darkit reproduce`` that repeats a run: what its command ran, with the restored code."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from darkit.reproduction.child import prepare, restored, write_report
from darkit.reproduction.command import CODE, MODULE, TRAIN
from darkit.reproduction.repeating import Plan


def main(path: Path) -> int:
    """Run what a plan says, as Python itself would."""
    plan = Plan.read(path)
    prepare(plan)
    command = plan.command
    words = [restored(word, plan) for word in command.words]
    if command.kind == TRAIN:
        from darkit.cli.train import main as train

        sys.argv = ["darkit", "train", *words]
        code = train(words)
        write_report(plan)
        return code
    if command.kind == CODE:
        sys.argv = ["-c", *words]
        sys.path.insert(0, "")
        exec(compile(command.what, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - the person's own
    elif command.kind == MODULE:
        sys.argv = [command.what, *words]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(command.what, run_name="__main__", alter_sys=True)
    else:
        script = restored(command.what, plan)
        sys.argv = [script, *words]
        sys.path.insert(0, str(Path(script).resolve().parent))
        runpy.run_path(script, run_name="__main__")
    write_report(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
