"""Classes that a script defined: the script is recorded, and loaded again when somebody predicts by the run's name."""

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
    """A script that is being loaded begins a training."""


def script_of(cls: type) -> dict[str, str]:
    """Returns ``path`` and ``sha256`` of the script that defined a class; nothing for any other class.

    A module that was run with ``python -m`` is ``{"module": its name}``: it can be imported. A class inside of a
    function cannot be found again, nor can one that was typed into an interpreter.
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
    """Returns what ``run.json`` records of a script: the facts of `script_of` and a seal on its path."""
    return {**script, "seal": seal.make(script["path"])} if "path" in script else dict(script)


def load_script(facts: Mapping[str, Any], run_name: str) -> ModuleType:
    """Loads a recorded script as a module of another name than ``__main__``.

    What stands behind ``if __name__ == "__main__"`` does not run. What begins a training outside of it ends the
    loading: what was defined before that counts.

    Args:
        facts: What `sealed` returned.
        run_name: The run's name, for messages.

    Raises:
        ModelError: The record was not made here, or the script cannot be read or loaded.
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
            "The script %s of the run %r has changed since the training: its class is taken as it is now.",
            path,
            run_name,
        )
    name = f"darkit_script_{hashlib.sha256(path.encode() + data).hexdigest()[:16]}"
    return sys.modules.get(name) or _load(name, path, data)


def refuse_in_script() -> None:
    """Keeps a script that is being loaded from training. Raises `ModelError`."""
    path = _loading.get()
    if path:
        raise _TrainsWhenLoaded(
            f'{path} trains when it is loaded: put the training behind if __name__ == "__main__", so that its classes '
            "can be found without it."
        )


def _load(name: str, path: str, data: bytes) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = path
    module.__spec__ = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        with _as_a_script(path):
            exec(compile(data, path, "exec"), vars(module))  # noqa: S102 - the person's own script, as its seal tells
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
    """Lets imports and arguments be those of a script that is started without any; what it prints goes to stderr."""
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
