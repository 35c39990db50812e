"""Helpers under DarwinKit's names: its paths, a CSV logger, seeds, and data for language models (`dataset`)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from darkit.core.utils.csv_logger import CSVLogger
from darkit.engine.device import seed_generators as set_seed
from darkit.errors import ConfigError
from darkit.runs.home import base, home

__all__ = ["CSVLogger", "find_multiple", "get_local_ip", "set_seed", "usetime"]

_PATHS: dict[str, Callable[[], Any]] = {  # below the home, at the time of the import
    "DARWIN_KIT_HOME": lambda: str(home()),
    "HOME_PATH": lambda: str(home()),
    "MODEL_PATH": lambda: home() / "models",
    "BASE_MODEL_PATH": base,
    "DATASET_PATH": lambda: home() / "datasets",
    "BASE_DATASET_PATH": lambda: home() / "datasets" / "base",
    "TMP_PATH": lambda: home() / "tmp",
}


def __getattr__(name: str) -> Any:
    if name in _PATHS:
        return _PATHS[name]()
    raise AttributeError(f"module 'darkit.core.utils' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_PATHS]


def find_multiple(n: int, k: int) -> int:
    """Return the smallest multiple of ``k`` that is at least ``n``. Raises `ConfigError` for a ``k`` below 1."""
    if k < 1:
        raise ConfigError(f"k must be at least 1, not {k}.")
    return -(-n // k) * k


def get_local_ip() -> str | None:
    """Return this computer's address in its network by its name, or None if it has none."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


@contextmanager
def usetime(desc: str) -> Iterator[None]:
    """Print how long the block takes."""
    began = time.perf_counter()
    yield
    print(f"{desc}: {time.perf_counter() - began:.3f} s")
