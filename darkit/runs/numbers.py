"""How numbers are written, on the pages, in notebooks and by commands.

``darkit.number`` in the pages' ``app.js`` follows the same rule.
"""

from __future__ import annotations

import math

_SMALLEST, _LARGEST, _LARGEST_WHOLE = 1e-3, 1e6, 1e9  # outside of these a number has an exponent
ODD_WORDS = ("NaN", "∞", "−∞")
LOST_MARK = " ⚠"  # behind the best value of a run that diverged


def number_text(value: float | None, digits: int = 5) -> str:
    """Return a number with its significant digits; whole numbers below 1e9 have all of theirs.

    Args:
        value: The number; None is empty text.
        digits: How many digits to show, at least 1; zeros at the end are left out.
    """
    if value is None:
        return ""
    if not math.isfinite(value):
        return odd_word(value)
    size = abs(value)
    if size < _LARGEST_WHOLE and float(value).is_integer():
        return str(int(value))
    if not _SMALLEST <= size < _LARGEST:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{_short(mantissa)}e{int(exponent)}"
    return _short(f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}")


def odd_word(value: float) -> str:
    """Return the word for NaN or an infinity."""
    return ODD_WORDS[0 if math.isnan(value) else 1 if value > 0 else 2]


def number_of_word(value: float | str) -> float:
    """Return the number of a word that `odd_word` returned; a number stays as it is."""
    return (
        dict(zip(ODD_WORDS, (math.nan, math.inf, -math.inf), strict=True))[value] if isinstance(value, str) else value
    )


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
