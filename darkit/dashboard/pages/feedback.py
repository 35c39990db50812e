"""What an action on runs answers: a message in the corner of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dash import State

from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.errors import DarkitError
from darkit.runs.notes import Notes, read_notes

Messages = list[dict[str, Any]]
SELECTED = State("selection", "data")
LANGUAGE = State("words", "data-language")


def message(sentence: str, colour: str) -> dict[str, Any]:
    """Return a message for the page's notifications."""
    return {"action": "show", "message": sentence, "color": colour}


def act_on_each(names: Sequence[str], act: Callable[[str], object], done: str) -> Messages:
    """Do something with each run and report it, or the first error, at which it stops."""
    for name in names:
        try:
            act(name)
        except DarkitError as error:
            return [message(readable(str(error)), "red")]
    return [message(done, "teal")]


def succeeded(messages: Messages) -> bool:
    """Return whether none of the messages is an error."""
    return all(message["color"] == "teal" for message in messages)


def notes_of(library: Library, names: Sequence[str]) -> dict[str, Notes]:
    """Return the notes of runs by name, without those of runs that are gone."""
    found = {}
    for name in names:
        with suppress(DarkitError):
            found[name] = read_notes(library.facts(name).folder)
    return found
