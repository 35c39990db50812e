"""Parts of a training that a forked child must not use: its parent's files and signals."""

from __future__ import annotations

import os
from typing import Any, Protocol
from weakref import WeakSet

_kept: list[Any] = []


class Forgets(Protocol):
    """Something that only the process which made it may use."""

    def forget(self) -> None:
        """Called in a forked child: from now on nothing is written, and nothing is waited for."""


_known: WeakSet[Forgets] = WeakSet()


def forget_in_child(part: Forgets) -> None:
    """Have ``part.forget()`` called in every forked child while the part exists."""
    _known.add(part)


def keep(*parts: Any) -> None:
    """Keep things for as long as this process lives: letting go of a loader would end its parent's workers."""
    _kept.extend(parts)


def _forget() -> None:
    for part in list(_known):
        part.forget()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget)
