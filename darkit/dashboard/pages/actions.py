"""What people do to runs: tags and notes, archive, delete, stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, no_update

from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import text
from darkit.errors import DarkitError
from darkit.runs.notes import Notes, merge_notes, read_notes
from darkit.runs.requests import request_stop
from darkit.runs.status import ALIVE
from darkit.runs.trash import move_to_trash

Messages = list[dict[str, Any]]
_SELECTED = State("selection", "data")
_WORDS = State("words", "data-language")


def add(app: Dash, library: Library) -> None:
    """Adds the callbacks."""
    _add_notes(app, library)
    _add_rename(app, library)
    _add_archive(app, library)
    _add_delete(app, library)
    _add_stop(app, library)


def _add_notes(app: Dash, library: Library) -> None:
    @app.callback(
        Output("notes-dialog", "opened"),
        Output("notes-tags", "value"),
        Output("notes-text", "value"),
        Output("tag-old", "data"),
        Output("notes-shown", "data"),
        Input("edit-notes", "n_clicks"),
        _SELECTED,
        prevent_initial_call=True,
    )
    def open_notes(clicks: int | None, names: list[str]) -> tuple[Any, Any, Any, Any, Any]:
        notes_of = _all_notes(library, names)
        all_notes = list(notes_of.values())
        if not clicks or not all_notes:
            return no_update, no_update, no_update, no_update, no_update
        everywhere = sorted({readable(tag) for entry in library.entries()[1] for tag in entry.facts.notes.tags})
        note = readable(all_notes[0].note) if len(names) == 1 else ""
        tags = list(map(readable, _shared_tags(all_notes)))
        shown = {"tags": tags, "notes": {name: readable(notes.note) for name, notes in notes_of.items()}}
        return True, tags, note, everywhere, shown

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("notes-dialog", "opened", allow_duplicate=True),
        Input("notes-save", "n_clicks"),
        _SELECTED,
        State("notes-tags", "value"),
        State("notes-text", "value"),
        State("notes-shown", "data"),
        _WORDS,
        prevent_initial_call=True,
    )
    def save_notes(
        clicks: int | None, names: list[str], tags: list[str], note: str, shown: Any, language: str
    ) -> tuple[Messages, Any]:
        if not clicks:
            return [], no_update

        def save(name: str) -> None:
            before = _shown_notes(_notes(library, name), shown, name)
            words = note or "" if len(names) == 1 else note or before.note
            merge_notes(library.facts(name).folder, before, replace(before, tags=tuple(tags or ()), note=words))

        messages = _each(names, save, text(language, "saved"))
        return messages, False if _went_well(messages) else no_update  # what was written is not lost with the dialog

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("own-shown", "data"),
        Input("own-save", "n_clicks"),
        _SELECTED,
        State("own-tags", "value"),
        State("own-note", "value"),
        State("own-shown", "data"),
        _WORDS,
        prevent_initial_call=True,
    )
    def save_own(
        clicks: int | None, names: list[str], tags: list[str], note: str, shown: Any, language: str
    ) -> tuple[Messages, Any]:
        if not clicks:
            return [], no_update

        def save(name: str) -> None:
            before = _shown_notes(_notes(library, name), shown, name)
            merge_notes(library.facts(name).folder, before, replace(before, tags=tuple(tags or ()), note=note or ""))

        messages = _each(names, save, text(language, "saved"))
        seen = {"tags": tags or [], "notes": dict.fromkeys(names, note or "")}
        return messages, seen if _went_well(messages) else no_update


def _add_rename(app: Dash, library: Library) -> None:
    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("notes-dialog", "opened", allow_duplicate=True),
        Input("tag-rename", "n_clicks"),
        State("tag-old", "value"),
        State("tag-new", "value"),
        _WORDS,
        prevent_initial_call=True,
    )
    def rename_tag(clicks: int | None, old: str | None, new: str | None, language: str) -> tuple[Messages, Any]:
        if not clicks or not old or not (new or "").strip():
            return [], no_update
        tagged = [entry.facts.folder.name for entry in library.entries()[1] if old in entry.facts.notes.tags]

        def put(name: str) -> None:
            notes = _notes(library, name)
            tags = tuple(str(new) if tag == old else tag for tag in notes.tags)
            merge_notes(library.facts(name).folder, notes, replace(notes, tags=tags))

        return _each(tagged, put, text(language, "renamed", count=len(tagged))), False


def _add_archive(app: Dash, library: Library) -> None:
    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Input("archive", "n_clicks"),
        _SELECTED,
        _WORDS,
        prevent_initial_call=True,
    )
    def archive(clicks: int | None, names: list[str], language: str) -> Messages:
        if not clicks or not names:
            return []
        away = not all(notes.archived for notes in _all_notes(library, names).values())

        def put(name: str) -> None:
            notes = _notes(library, name)
            merge_notes(library.facts(name).folder, notes, replace(notes, archived=away))

        return _each(names, put, text(language, "archived_count" if away else "unarchived_count", count=len(names)))


def _add_delete(app: Dash, library: Library) -> None:
    @app.callback(
        Output("delete-dialog", "opened"),
        Output("delete-text", "children"),
        Output("delete-name", "value"),
        Input("delete", "n_clicks"),
        _SELECTED,
        prevent_initial_call=True,
    )
    def open_delete(clicks: int | None, names: list[str]) -> tuple[Any, Any, Any]:
        if not clicks or len(names) != 1:
            return no_update, no_update, no_update
        return True, names[0], ""

    app.clientside_callback(
        ClientsideFunction("darkit", "sameName"),
        Output("delete-now", "disabled"),
        Input("delete-name", "value"),
        _SELECTED,
    )

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("delete-dialog", "opened", allow_duplicate=True),
        Output("viewed", "data"),
        Input("delete-now", "n_clicks"),
        State("delete-name", "value"),
        _SELECTED,
        _WORDS,
        prevent_initial_call=True,
    )
    def delete(clicks: int | None, typed: str, names: list[str], language: str) -> tuple[Messages, Any, Any]:
        if not clicks or names != [typed]:
            return [], no_update, no_update
        messages = _each(
            names, lambda name: move_to_trash(library.root, name), text(language, "deleted", name=readable(typed))
        )
        return messages, False, {"deleted": typed} if _went_well(messages) else no_update

    app.clientside_callback(
        ClientsideFunction("darkit", "leaveDeleted"),
        Output("mounted", "data", allow_duplicate=True),
        Input("viewed", "data"),
        prevent_initial_call=True,
    )


def _add_stop(app: Dash, library: Library) -> None:
    app.clientside_callback(
        ClientsideFunction("darkit", "openDialog"),
        Output("stop-dialog", "opened"),
        Input("stop", "n_clicks"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("stop-dialog", "opened", allow_duplicate=True),
        Input("stop-now", "n_clicks"),
        _SELECTED,
        _WORDS,
        prevent_initial_call=True,
    )
    def stop(clicks: int | None, names: list[str], language: str) -> tuple[Messages, Any]:
        if not clicks or len(names) != 1:
            return [], no_update
        try:
            facts = library.facts(names[0])
            if facts.state not in ALIVE:
                return [_message(text(language, "stop_ended"), "orange")], False
            request_stop(facts.folder, by="dashboard")
        except DarkitError as error:
            return [_message(readable(str(error)), "red")], False
        return [_message(text(language, "stop_asked"), "teal")], False


def _shared_tags(all_notes: Sequence[Notes]) -> list[str]:
    """The tags that all of these have."""
    return [tag for tag in all_notes[0].tags if all(tag in notes.tags for notes in all_notes)] if all_notes else []


def _notes(library: Library, name: str) -> Notes:
    return read_notes(library.facts(name).folder)


def _all_notes(library: Library, names: Sequence[str]) -> dict[str, Notes]:
    """The notes of the chosen runs by name; those that are gone are left out."""
    found = {}
    for name in names:
        with suppress(DarkitError):
            found[name] = _notes(library, name)
    return found


def _shown_notes(there: Notes, shown: Any, name: str) -> Notes:
    """The words that a page showed before a person changed them; none where it does not tell.

    Where they are those there now, they have the form in the file, which a page cannot show in every detail.
    """
    shown = shown if isinstance(shown, Mapping) else {}
    tags, notes = shown.get("tags"), shown.get("notes")
    note = notes.get(name) if isinstance(notes, Mapping) else None
    known = {readable(tag): tag for tag in there.tags}
    return Notes(
        tuple(known.get(tag, tag) for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        there.note if note == readable(there.note) else note if isinstance(note, str) else "",
        there.archived,
    )


def _went_well(messages: Messages) -> bool:
    return all(message["color"] == "teal" for message in messages)


def _each(names: list[str], act: Callable[[str], object], done: str) -> Messages:
    for name in names:
        try:
            act(name)
        except DarkitError as error:
            return [_message(readable(str(error)), "red")]
    return [_message(done, "teal")]


def _message(sentence: str, colour: str) -> dict[str, Any]:
    return {"action": "show", "message": sentence, "color": colour}
