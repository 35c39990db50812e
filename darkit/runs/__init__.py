"""Runs as files: names, paths, lock, status, log, configs and checkpoints. Imports no torch.

``darkit.runs()`` lists every run, newest first; the modules below are the format's only reader and writer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from darkit.runs.home import base, home
from darkit.runs.run import Run, list_runs, load

__all__ = ["Run", "base", "home", "list_runs", "load"]


class _CallableModule(ModuleType):
    """Let ``darkit.runs`` be both this package and the function that lists the runs."""

    def __call__(self, *, root: Path | None = None) -> list[Run]:
        return list_runs(root=root)


sys.modules[__name__].__class__ = _CallableModule
