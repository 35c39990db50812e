"""Names of the runs of a sweep: what differs, such as ``gpt-lr=0.003-hidden_size=64``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from darkit.runs.names import LONGEST_NAME, check_name

_DIGITS = 4  # significant digits of a number in a name
_LONGEST_VALUE = 24  # characters
_ROOM = 16  # characters for the seed and a number that makes a name unique
_UNSAFE = re.compile(r"[^\w.+-]+")


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each key that tells it from the others: ``trainer.lr`` -> ``lr``."""
    bare = {key: key.lstrip("+~").partition("@")[0].replace("/", ".").split(".") for key in keys}
    found = {}
    for key, parts in bare.items():
        others = [other for name, other in bare.items() if name != key]
        size = next(
            (size for size in range(1, len(parts)) if all(other[-size:] != parts[-size:] for other in others)),
            len(parts),
        )
        found[key] = ".".join(parts[-size:])
    return found


def columns(keys: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Return the column of each key in a table that has others: its short key, or its whole one where that is taken."""
    found = {}
    for key, short in short_keys(keys).items():
        whole = key.lstrip("+~")
        found[key] = short if short not in taken else whole if whole not in taken else f"{whole}="
    return found


def short_value(text: str) -> str:
    """Return a value as a name can hold it: a number with four digits, text without signs."""
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    try:
        return f"{float(text):.{_DIGITS}g}" if not text.isdigit() else text
    except ValueError:
        return _UNSAFE.sub("-", text).strip("-.")[:_LONGEST_VALUE] or "empty"


def run_prefix(sweep: str) -> str:
    """Return what the names of all runs of a sweep begin with."""
    return sweep[: LONGEST_NAME - 2 * _ROOM]


def trial_name(prefix: str, values: Mapping[str, str], number: int, is_taken: Callable[[str], bool]) -> str:
    """Return an unused name for a trial.

    Args:
        prefix: What all names of the sweep begin with.
        values: The values of the trial, by the short name of their setting.
        number: The trial's number, which stands for the values where they do not fit.
        is_taken: Tells whether a name is in use.
    """
    stem = "-".join([prefix, *(f"{key}={short_value(value)}" for key, value in values.items())])
    if len(stem) > LONGEST_NAME - _ROOM or len(stem.encode()) > 200:
        stem = f"{run_prefix(prefix)}-trial={number}"
    name, count = stem, 1
    while is_taken(name):
        count += 1
        name = f"{stem}-{count}"
    return check_name(name)
