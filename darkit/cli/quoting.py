"""Paths and names on the command line, put into quotes where Hydra would read something else or nothing.

Hydra's grammar has no ``~/texts``, ``a=b``, ``x (1).txt`` or ``模型``.
It takes ``1e-3`` for a number and ``a,b`` for two values. Its own syntax keeps its meaning: quotes, lists,
interpolations, ``null`` and, with ``-m``, sweeps.
"""

from __future__ import annotations

import re
from typing import Any

from darkit.engine.config import AUTO

_WORDS = {  # words of a name-valued setting that are no names
    "name": ("", "null"),
    "trainer.name": ("", "null"),
    "resume": ("", "null", "true", "false", AUTO),
    "fork": ("", "null"),
}
_PATHS = re.compile(r"(^|[._])(path|paths|file|files|folder|dir|root|home|tokenizer)$")
_LIST = re.compile(r"\[[^\[\]{}()'\"$]*\]")
_STRUCTURE = re.compile(r"[\[\]{}()'\"$]")


def with_text_quoted(word: str, *, sweep: bool) -> str:
    """Quote the value of an override that sets a path or a name, if Hydra would not read it as it is written.

    Args:
        word: An override such as ``data.path=~/texts``.
        sweep: Whether commas and functions make runs of their own.
    """
    key, equals, value = word.partition("=")
    if not equals or word.startswith("~"):  # a deletion
        return word
    setting = key.lstrip("+")
    if setting in _WORDS:
        return word if value.lower() in _WORDS[setting] else f"{key}={_name(value, sweep=sweep)}"
    return f"{key}={_path(value, sweep=sweep)}" if _PATHS.search(setting) else word


def sets_path(word: str) -> bool:
    """Return whether an override sets a path."""
    return _PATHS.search(word.partition("=")[0]) is not None


def path_given(word: str) -> Any:
    """Read the value of an override that sets a path, as ``darkit train`` does.

    Raises:
        HydraException: It is a structure with a mistake in it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(with_text_quoted(word, sweep=False)).value()


def unquoted(value: str) -> str:
    """Remove the quotes around a value."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _name(value: str, *, sweep: bool) -> str:
    if unquoted(value) != value or "${" in value or (sweep and re.search(r"[,(]", value)):
        return value
    return _quoted(value)


def _path(value: str, *, sweep: bool) -> str:
    """Quote a path, or the members of a list or sweep of paths, unless Hydra reads text or a structure of its own."""
    if not value or value.lower() == "null" or "${" in value or unquoted(value) != value:
        return value
    if _LIST.fullmatch(value):
        return f"[{','.join(_member(part.strip()) for part in value[1:-1].split(','))}]" if value[1:-1] else value
    if sweep and "," in value and not _STRUCTURE.search(value):
        return ",".join(_member(part.strip()) for part in value.split(","))
    return value if _is_hydras(value, sweep=sweep) else _quoted(value)


def _member(value: str) -> str:
    return value if value.lower() == "null" or _is_hydras(value, sweep=False) else _quoted(value)


def _is_hydras(value: str, *, sweep: bool) -> bool:
    """Return whether Hydra reads a value as text, or as a structure, which is never the meaning of a path."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"key={value}")
        if override.is_sweep_override():
            return sweep or "(" in value  # which Hydra refuses without -m, and says why
        read: Any = override.value()
    except (HydraException, ValueError):  # ValueError: what looks like one of Hydra's functions
        return False
    return isinstance(read, str | list | dict)


def _quoted(value: str) -> str:
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"
