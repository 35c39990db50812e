"""Names of imported runs: those of their sources, made valid."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from darkit.runs.names import is_name

_LONGEST = 80  # characters; a number must fit behind it
_MOST_BYTES = 200
_UNSAFE = re.compile(r"[/\\:]+")
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def valid_name(wanted: str) -> str:
    """Return the nearest name that a run can have."""
    name = unicodedata.normalize("NFC", _UNSAFE.sub("-", wanted))
    name = "".join(one if unicodedata.category(one) not in _UNSEEN else " " for one in name)
    name = " ".join(name.split())
    if len(name) > _LONGEST:
        name = name[-_LONGEST:]  # the end of a path tells more
    while len(name.encode()) > _MOST_BYTES:
        name = name[1:]
    name = name.strip().lstrip(".-").strip()
    return name if is_name(name) else "run"


def free_name(root: Path, wanted: str) -> str:
    """Return this name, with ``-2``, ``-3``, ... after it where it is taken."""
    count, name = 1, wanted
    while (root / name).exists() or (root / name).is_symlink():
        count += 1
        name = f"{wanted}-{count}"
    return name
