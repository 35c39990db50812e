"""The overrides of ``darkit train`` with which a run was resumed: one list for each resume, complete by itself.

Those of its start are in ``config.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from darkit.runs import seal
from darkit.runs.safe import as_dict

_PURPOSE = "overrides of a resume"


def record_overrides(overrides: Iterable[Any]) -> dict[str, Any]:
    """Return what an entry of ``continued`` in ``run.json`` records, sealed as ``config.yaml`` is."""
    words = [str(word) for word in overrides]
    return {"overrides": words, "overrides_seal": seal.make(json.dumps(words), purpose=_PURPOSE)} if words else {}


def resumed_overrides(info: dict[str, Any], step: float) -> tuple[list[str], bool] | None:
    """Return the overrides of the last resume before a step.

    Args:
        info: The run's ``run.json``; anybody may have written it.
        step: The step, whose checkpoint is of the training that the resume began.

    Returns:
        The overrides, and whether this darkit home recorded them; None if there was no such resume by ``darkit train``.
    """
    entries = info.get("continued")
    for entry in map(as_dict, reversed(entries) if isinstance(entries, list) else ()):
        after, words = entry.get("after_step"), entry.get("overrides")
        if type(after) is int and after < step and isinstance(words, list):
            found = [str(word) for word in words]
            return found, seal.holds(json.dumps(found), entry.get("overrides_seal"), purpose=_PURPOSE)
    return None
