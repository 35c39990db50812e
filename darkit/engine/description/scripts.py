"""Classes defined in a script: the script is recorded, and loaded again for prediction."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from darkit.errors import ModelError
from darkit.runs import seal
from darkit.runs.safe import UnreadableError, read_bytes

logger = logging.getLogger(__name__)
MAIN = ("__main__", "__mp_main__")
_LONGEST = 4 * 2**20  # bytes
_loading: ContextVar[str] = ContextVar("loading", default="")


class _TrainsWhenLoaded(ModelError):
    """A script started a training while it was loaded."""


def script_of(cls: type) -> dict[str, str]:
    """Return ``path`` and ``sha256`` of the script that defines a class; empty for other classes.

    For a module run with ``python -m`` it is ``{"module": name}``. Classes inside functions or from an interpreter
    cannot be found again.
    """
    main = sys.modules.get("__main__")
    if cls.__module__ not in MAIN or main is None or "<locals>" in cls.__qualname__:
        return {}
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return {"module": str(spec.name)}
    file = getattr(main, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return {}
    path = Path(file).resolve()
    try:
        data = read_bytes(path, _LONGEST)
    except (OSError, UnreadableError):
        return {}
    return {"path": str(path), "sha256": hashlib.sha256(data).hexdigest()}


def sealed(script: Mapping[str, str]) -> dict[str, str]:
    """Return the entry of ``run.json``: the result of `script_of` with a seal on the path."""
    return {**script, "seal": seal.make(script["path"])} if "path" in script else dict(script)


def load_script(facts: Mapping[str, Any], run_name: str) -> ModuleType:
    """Load a recorded script as a module, without its ``if __name__ == "__main__"`` block.

    A training outside of that block ends the loading; earlier definitions are available.

    Args:
        facts: The result of `sealed`.
        run_name: The run's name, for messages.

    Raises:
        ModelError: The record is of another darkit home, or the script cannot be read or loaded.
    """
    path = facts.get("path")
    if not isinstance(path, str) or not seal.holds(path, facts.get("seal")):
        raise ModelError("its script was not recorded by this darkit home, so it is not run")
    try:
        data = read_bytes(Path(path), _LONGEST)
    except (OSError, UnreadableError, ValueError) as error:
        raise ModelError(f"its script {path} cannot be read ({error})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != facts.get("sha256"):
        logger.warning(
            "The script %s of the run %r has changed since the training; its current class is used.",
            path,
            run_name,
        )
    name = f"darkit_script_{hashlib.sha256(path.encode() + data).hexdigest()[:16]}"
    return sys.modules.get(name) or _load(name, path, data)


def refuse_in_script() -> None:
    """Refuse to train while a script is being loaded. Raises `ModelError`."""
    path = _loading.get()
    if path:
        raise _TrainsWhenLoaded(
            f'{path} trains when it is loaded: put the training inside if __name__ == "__main__", so that its '
            "classes can be imported."
        )


def _load(name: str, path: str, data: bytes) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = path
    module.__spec__ = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module  # first, because dataclasses look up their module
    try:
        with _as_a_script(path):
            exec(compile(data, path, "exec"), vars(module))  # noqa: S102 - the user's own script, checked by its seal
    except BaseException as error:
        if isinstance(error, _TrainsWhenLoaded):
            return module
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ModelError(f"its script {path} cannot be loaded ({type(error).__name__}: {error})") from error
    return module


@contextlib.contextmanager
def _as_a_script(path: str) -> Iterator[None]:
    """Set ``sys.argv`` and ``sys.path`` as for a script without arguments; redirect its output to stderr."""
    arguments, folder = sys.argv, str(Path(path).parent)
    token = _loading.set(path)
    sys.argv = [path]
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _loading.reset(token)
        sys.argv = arguments
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
