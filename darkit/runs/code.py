"""The code of a run as it was recorded, and whether this darkit home recorded it: what may be run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from darkit.runs import seal
from darkit.runs.run import Run

CODE_SEAL = "code_seal"


def seal_code(info: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Return the seal of what would run again; empty for a run elsewhere where there is no home.

    It is of command, working directory, commit, diff and untracked files.

    Args:
        info: The content of ``run.json``.
        environment: The content of ``environment.json``.
    """
    return seal.make(_text(info, environment), purpose=CODE_SEAL, new_home=False)


def is_sealed(run: Run) -> bool:
    """Return whether this darkit home recorded a run's code and nobody has changed it since."""
    return seal.holds(_text(run.info, run.environment), run.info.get(CODE_SEAL), purpose=CODE_SEAL)


def _text(info: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    parts = [info.get("command"), info.get("folder"), info.get("git"), environment.get("files")]
    return json.dumps(parts, sort_keys=True)
