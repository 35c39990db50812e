"""Every word that the pages say, in one place per language."""

from __future__ import annotations

from darkit.dashboard.texts.en import ENGLISH
from darkit.dashboard.texts.zh import CHINESE

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}


def text(language: str, key: str, **values: object) -> str:
    """Returns a text in a language (English where the language is unknown), with its values filled in."""
    found = LANGUAGES.get(language, ENGLISH)[key]
    return found.format(**values) if values else found


def grid_texts(language: str) -> dict[str, str]:
    """The words of the tables themselves, by the names that the grid has for them."""
    words = LANGUAGES.get(language, ENGLISH)
    return {key.removeprefix("grid_"): said for key, said in words.items() if key.startswith("grid_")}


def preferred(header: str) -> str:
    """Chooses a language from an ``Accept-Language`` header: the first of its tags that is known."""
    for part in header.split(","):
        tag = part.partition(";")[0].strip().lower().partition("-")[0]
        if tag in LANGUAGES:
            return tag
    return "en"
