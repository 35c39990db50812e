"""Text that is safe to print on a terminal: control characters are written as escapes."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_LAYOUT = "\n\t"
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, bidirectional and zero width, half characters, breaks
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")  # shown as nothing
_PLAIN = re.compile(r"[ -~\n\t]*")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')  # a text is one token, so what stands in it is let alone
_VALID_JSON = {"Infinity": "1e999", "-Infinity": "-1e999", "NaN": "null"}


def inert(text: object, *, lines: bool = False) -> str:
    r"""Return text without control sequences for a terminal.

    What moves the cursor, changes colours or the window's title, reverses the direction of writing or is not seen at
    all becomes an escape such as ``\x1b``.

    Args:
        text: Anything; what is not text is shown as its text.
        lines: Whether line breaks and tabs stay; otherwise they are escapes too.
    """
    shown = text if isinstance(text, str) else str(text)
    if _PLAIN.fullmatch(shown) and (lines or not ("\n" in shown or "\t" in shown)):
        return shown
    steering = (one for one in set(shown) if _steers(one) and not (lines and one in _LAYOUT))
    return shown.translate({ord(one): one.encode("unicode_escape").decode("ascii") for one in steering})


def format_json(value: Any, *, indent: int | None = 2) -> str:
    """Format a value as JSON that any program reads and that only shows itself on a terminal.

    JSON has no word for infinity or NaN: an infinity becomes ``1e999``, which every reader takes for infinity or its
    largest number, and NaN becomes ``null``. What JSON has no form for becomes its text.
    """
    text = valid_json(json.dumps(value, indent=indent, ensure_ascii=False, default=str))
    if _PLAIN.fullmatch(text):
        return text
    return "".join(json.dumps(one)[1:-1] if _steers(one) and one != "\n" else one for one in text)


def valid_json(text: str) -> str:
    """Replace what Python writes for infinity and NaN by what JSON has."""
    if "Infinity" not in text and "NaN" not in text:
        return text
    return _JSON_TOKEN.sub(lambda token: _VALID_JSON.get(token[0], token[0]), text)


def _steers(one: str) -> bool:
    return unicodedata.category(one) in _STEERING or one in _BLANK
