"""An INPUT for ``darkit predict`` that fits a run, from what the run recorded of its data."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from darkit.runs import Run, files

_MOST_NUMBERS = 64
_TENSOR = re.compile(r"\(*(\w+?)\d*\[([\d, ]*)\]")


def example_input(run: Run) -> str:
    """Returns what can stand for INPUT in a shell: a prompt, numbers of the right shape, or the word itself."""
    if (run.path / files.TOKENIZER).is_file() or (run.path / files.TOKENIZER_FOLDER).is_dir():
        return '"The import statement"'
    first = first_input(run)
    if first is None:
        return "INPUT"
    kind, shape = first
    if math.prod(shape) > _MOST_NUMBERS:
        return "INPUT"
    number: Any = {"float": 0.5, "bool": True}.get(kind, 1)
    for length in reversed((1, *shape)):
        number = [number] * length
    return f'"{json.dumps(number)}"'


def first_input(run: Run) -> tuple[str, tuple[int, ...]] | None:
    """Returns kind (such as ``float`` or ``int``) and shape of the first part of a sample, or None if it is unknown."""
    match = _TENSOR.match(str(run.info.get("data", {}).get("sample", "")))  # named inputs have no first
    if match is None:
        return None
    shape = tuple(int(length) for length in match[2].split(",") if length.strip())
    return "float" if "float" in match[1] else match[1], shape
