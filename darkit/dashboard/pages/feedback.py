"""What an action on runs answers: a message in the corner of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
_MOST_REASONS = 3  # that a message gives
_TIME_TO_UNDO = 20_000  # milliseconds for which the button is shown


def message(sentence: str, colour: str) -> dict[str, Any]:
    """Return a message for the page's notifications."""
    return {"action": "show", "message": sentence, "color": colour}


def act_on_each(
    names: Sequence[str], act: Callable[[str], Callable[[], object]], done: str, undos: Undos, language: str
) -> Messages:
    """Do something with each run and report it; an error of one does not keep the others from it, and is reported.

    Args:
        names: The addresses of the runs.
        act: Does it with one run, and returns what undoes it.
        done: The report.
        undos: Keeps what undoes it; the report has a button for that.
        language: The language of the button.
    """
    steps: list[Callable[[], object]] = []
    problems: dict[str, str] = {}
    for name in names:
        try:
            steps.append(act(name))
        except DarkitError as error:
            problems[name] = readable(str(error))
    said = message(done, "teal") if not problems else message(_failures(problems, len(names), language), "red")
    if not steps:
        return [said]
    button = html.Button(text(language, "undo"), className="small-button undo", **{"data-undo": undos.add(steps[::-1])})
    content = html.Div([html.Span(said["message"]), button], className="with-undo")
    return [{**said, "message": content, "autoClose": _TIME_TO_UNDO}]


def _failures(problems: Mapping[str, str], count: int, language: str) -> str:
    """Say how many of several runs something was done to, and why not to the others."""
    if count == 1:
        return next(iter(problems.values()))
    reasons = [f"{readable(name)}: {problem}" for name, problem in problems.items()]
    more = " …" if len(reasons) > _MOST_REASONS else ""
    said = text(language, "some_done", done=f"{count - len(problems):,}", count=f"{count:,}")
    return f"{said} {' '.join(reasons[:_MOST_REASONS])}{more}"


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
