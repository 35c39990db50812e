"""An INPUT for ``darkit predict`` that fits a run, from what the run recorded of its data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkit.runs import files
from darkit.runs.safe import is_strange

_MOST_NUMBERS = 64
_LONGEST = 1000  # characters of what is told of a sample
_MASKED = ("MaskedTokens", "SentencePairs")  # data of which a model learns what is hidden
_TENSOR = re.compile(r"\(*(\w+?)\d*\[([\d, ]*)\]")


def example_input(folder: Path, info: Mapping[str, Any]) -> str:
    """Returns what can stand for INPUT in a shell: a prompt, numbers of the right shape, or the word itself.

    Args:
        folder: The run directory.
        info: What its ``run.json`` tells.
    """
    data = info.get("data")
    if has_tokenizer(folder):
        masked = isinstance(data, dict) and data.get("kind") in _MASKED
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
    """Says whether a run's model is asked in words."""
    places = folder / files.TOKENIZER, folder / files.TOKENIZER_FOLDER
    return any(place.exists() and not is_strange(place) for place in places)


def first_input(info: Mapping[str, Any]) -> tuple[str, tuple[int, ...]] | None:
    """Returns kind (such as ``float`` or ``int``) and shape of the first part of a sample, or None if it is unknown."""
    data = info.get("data")
    match = _TENSOR.match(
        str(data.get("sample", ""))[:_LONGEST] if isinstance(data, dict) else ""
    )  # named inputs have no first
    if match is None:
        return None
    shape = tuple(int(length) for length in match[2].split(",") if length.strip())
    return "float" if "float" in match[1] else match[1], shape
