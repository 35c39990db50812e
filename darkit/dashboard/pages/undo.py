"""What was done to runs can be undone for a while: the actions that bring back what was there, by a token."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from darkit.errors import DarkitError

_KEPT = 50  # actions


class UndoneError(DarkitError, LookupError):
    """An action that cannot be undone any more."""


class Undos:
    """The last actions of this server's readers, each with what undoes it."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, Sequence[Callable[[], object]]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, steps: Sequence[Callable[[], object]]) -> str:
        """Keep what undoes an action, and return the token by which it is asked for."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._steps[token] = steps
            while len(self._steps) > _KEPT:
                self._steps.popitem(last=False)
        return token

    def undo(self, token: str) -> int:
        """Undo an action, once, and return how many runs it was done to.

        Raises:
            UndoneError: It was undone already, or is too long ago.
            DarkitError: A run cannot be changed back. All others are; what failed can be tried again.
        """
        with self._lock:
            steps = self._steps.pop(token, None)
        if steps is None:
            raise UndoneError("This cannot be undone any more.")
        failed, errors = [], []
        for step in steps:
            try:
                step()
            except DarkitError as error:
                failed.append(step)
                errors.append(error)
        if errors:
            with self._lock:
                self._steps[token] = failed
            raise errors[0]
        return len(steps)
