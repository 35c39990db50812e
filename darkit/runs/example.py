"""An INPUT for ``darkit predict`` that fits a run, from what the run recorded of its data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from darkit.runs import files
from darkit.runs.safe import as_dict, is_strange
from darkit.runs.tasks import MASKED

_MOST_NUMBERS = 64
_LONGEST = 1000  # characters of a sample's description
_MASKED = ("MaskedTokens", "SentencePairs")  # datasets of runs that recorded no task
_FIRST = re.compile(r"\(*(\w+)\[([\d, ]*)\]")
_LAST = re.compile(r", (\w+)\[([\d, ]*)\]\)$")
Part = tuple[str, tuple[int, ...]]  # kind, such as "float" or "int", and shape


def example_input(folder: Path, info: Mapping[str, Any]) -> str:
    """Return what can stand for INPUT in a shell: a prompt, numbers of the right shape, or the word itself."""
    if has_tokenizer(folder):
        masked = _recorded(info, "task") == MASKED or _recorded(info, "kind") in _MASKED
        return '"The [MASK] statement"' if masked else '"The import statement"'
    first = first_input(info)
    if first is None:
        return "INPUT"
    kind, shape = first
    if max(math.prod(shape), *shape, 0) > _MOST_NUMBERS:
        return "INPUT"
    number: Any = {"float": 0.5, "bool": True}.get(kind, 1)
    for length in reversed((1, *shape)):
        number = [number] * length
    return f'"{json.dumps(number)}"'


def has_tokenizer(folder: Path) -> bool:
    """Return whether a run's model is asked in words."""
    places = folder / files.TOKENIZER, folder / files.TOKENIZER_FOLDER
    return any(place.exists() and not is_strange(place) for place in places)


def first_input(info: Mapping[str, Any]) -> Part | None:
    """Return the first part of a sample, or None if it is unknown or the inputs are named."""
    parts = _recorded(info, "sample_parts")
    while isinstance(parts, list) and parts:
        parts = parts[0]
    return _part(parts) if parts is not None else _from_text(_FIRST.match, info)


def target(info: Mapping[str, Any]) -> Part | None:
    """Return the last part of a sample of several, or None if it is unknown."""
    parts = _recorded(info, "sample_parts")
    if parts is None:
        return _from_text(_LAST.search, info)
    return _part(parts[-1]) if isinstance(parts, list) and len(parts) > 1 else None


def _recorded(info: Mapping[str, Any], key: str) -> Any:
    return as_dict(info.get("data")).get(key)


def _part(part: Any) -> Part | None:
    if not isinstance(part, dict) or not isinstance(part.get("dtype"), str) or not isinstance(part.get("shape"), list):
        return None
    if not all(isinstance(length, int) and length >= 0 for length in part["shape"]):
        return None
    return _kind(part["dtype"]), tuple(part["shape"])


def _from_text(find: Callable[[str], re.Match[str] | None], info: Mapping[str, Any]) -> Part | None:
    """Read what runs recorded that have no ``sample_parts``, such as ``(float32[12], int64[])``."""
    match = find(str(_recorded(info, "sample"))[:_LONGEST])
    if match is None:
        return None
    return _kind(match[1]), tuple(int(length) for length in match[2].split(",") if length.strip())


def _kind(dtype: str) -> str:
    return "float" if "float" in dtype else dtype.rstrip("0123456789")
