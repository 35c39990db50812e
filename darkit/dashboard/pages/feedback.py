"""What an action on runs answers: a message in the corner of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dash import State, html

from darkit.dashboard.pages.undo import Undos
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import text
from darkit.errors import DarkitError
from darkit.runs.notes import Notes, read_notes

Messages = list[dict[str, Any]]
SELECTED = State("selection", "data")
LANGUAGE = State("words", "data-language")
_TIME_TO_UNDO = 20_000  # milliseconds for which the button is shown


def message(sentence: str, colour: str) -> dict[str, Any]:
    """Return a message for the page's notifications."""
    return {"action": "show", "message": sentence, "color": colour}


def act_on_each(
    names: Sequence[str], act: Callable[[str], Callable[[], object]], done: str, undos: Undos, language: str
) -> Messages:
    """Do something with each run and report it, or the first error, at which it stops.

    Args:
        names: The addresses of the runs.
        act: Does it with one run, and returns what undoes it.
        done: The report.
        undos: Keeps what undoes it; the report has a button for that.
        language: The language of the button.
    """
    steps: list[Callable[[], object]] = []
    said = message(done, "teal")
    for name in names:
        try:
            steps.append(act(name))
        except DarkitError as error:
            said = message(readable(str(error)), "red")
            break
    if not steps:
        return [said]
    button = html.Button(text(language, "undo"), className="small-button undo", **{"data-undo": undos.add(steps[::-1])})
    content = html.Div([html.Span(said["message"]), button], className="with-undo")
    return [{**said, "message": content, "autoClose": _TIME_TO_UNDO}]


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
