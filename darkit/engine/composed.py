"""The composed config of ``darkit train``, as a training gets it: as YAML."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]

from darkit.runs.overrides import record_overrides
from darkit.runs.safe import as_dict


def record_resume(composed: str) -> dict[str, Any]:
    """Return what the entry of a resume in ``run.json`` records of the config that it was started with, or nothing."""
    return record_overrides(as_dict(yaml.safe_load(composed)).get("overrides") or ())
