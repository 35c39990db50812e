"""Report and record the settings that a training changes in an optimizer of the user's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Callback

from darkit.engine.fork import changed_since
from darkit.engine.log.progress import announce
from darkit.engine.resume import Changes, Resume
from darkit.engine.session import Session
from darkit.engine.steps.own_settings import OwnSettings, listed
from darkit.runs import Run, files
from darkit.runs.safe import as_dict


def own_settings(
    found: Resume | None,
    changes: Changes,
    session: Session,
    *,
    allowed: bool,
    honours: bool = True,
    callbacks: Sequence[Callback] = (),
) -> OwnSettings:
    """Return what compares the settings of the user's optimizer, and reports and records those that hold.

    Args:
        found: What the training starts from.
        changes: The settings of the config that differ.
        session: The training's.
        allowed: Whether a resume may have other settings.
        honours: As for `OwnSettings`.
        callbacks: The user's callbacks.
    """

    def tell(differing: Changes) -> None:
        announce(f"Changed: {listed(differing)}.")
        session.check()
        info = Run(session.folder).info
        place: dict[str, Any] = info["fork"] if fork else (info.get("continued") or [{}])[-1]
        place["changes"] = as_dict(place.get("changes")) | {key: list(pair) for key, pair in differing.items()}
        files.write_json(session.folder / files.RUN, info)

    fork = found is not None and found.fork
    changed = changed_since(found, changes)
    told = tell if session.writes else None
    others = any(not type(one).__module__.startswith("darkit.") for one in callbacks)
    return OwnSettings(changed, fork=fork, allowed=allowed, tell=told, honours=honours, has_callbacks=others)
