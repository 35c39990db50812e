"""All texts of the pages, one file per language."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from darkit.dashboard.texts.en import ENGLISH
from darkit.dashboard.texts.en_help import ENGLISH_HELP
from darkit.dashboard.texts.en_model import ENGLISH_MODEL
from darkit.dashboard.texts.zh import CHINESE
from darkit.dashboard.texts.zh_comparison import CHINESE_COMPARISON
from darkit.dashboard.texts.zh_help import CHINESE_HELP
from darkit.dashboard.texts.zh_model import CHINESE_MODEL
from darkit.runs.comparison_words import WORDS

LANGUAGES = {
    "en": {**ENGLISH, **ENGLISH_HELP, **ENGLISH_MODEL, **WORDS},
    "zh": {**CHINESE, **CHINESE_HELP, **CHINESE_MODEL, **CHINESE_COMPARISON},
}


def text(language: str, key: str, **values: object) -> str:
    """Return a text in a language (English if unknown), with its values filled in."""
    found = LANGUAGES.get(language, LANGUAGES["en"])[key]
    return found.format(**values) if values else found


def duration_text(language: str, seconds: float) -> str:
    """Write a duration as ``darkit.duration`` of the pages does: in two units, or in seconds alone."""
    if seconds < 10:
        return text(language, "time_seconds", seconds=_rounded(seconds, "0.1"))
    whole = int(_rounded(seconds, "1"))
    if seconds < 59.5:
        return text(language, "time_seconds", seconds=whole)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return text(language, "time_minutes", minutes=minutes, seconds=rest)
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return text(language, "time_hours", hours=hours, minutes=minutes)
    return text(language, "time_days", days=hours // 24, hours=hours % 24)


def _rounded(number: float, unit: str) -> Decimal:
    """Round as a browser does: a half up."""
    return Decimal(number).quantize(Decimal(unit), ROUND_HALF_UP)


def preferred(header: str) -> str:
    """Choose a language from an ``Accept-Language`` header: the first known one."""
    for part in header.split(","):
        tag = part.partition(";")[0].strip().lower().partition("-")[0]
        if tag in LANGUAGES:
            return tag
    return "en"
