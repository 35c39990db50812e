"""Tags and notes of runs: the dialog of the table, the tab of a run, and what saves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from darkit.dashboard.pages.feedback import LANGUAGE, SELECTED, Messages, act_on_each, notes_of, succeeded
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import card, dialog, dialog_foot
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import text
from darkit.runs.notes import Notes, merge_notes, read_notes


def notes_dialog(language: str) -> Component:
    """Return the dialog that edits the tags and the note of the chosen runs."""
    say = partial(text, language)
    return dialog(
        "notes",
        say("edit_notes"),
        language,
        [
            dcc.Store(id="notes-shown"),
            dmc.TagsInput(id="notes-tags", label=say("tags"), placeholder=say("tags_hint"), value=[], maxTags=30),
            dmc.Textarea(id="notes-text", label=say("note"), autosize=True, minRows=4, maxRows=14, value="", mt="sm"),
            dialog_foot(say("save"), "notes-save", "primary"),
            html.Details(
                [
                    html.Summary(say("rename_tag")),
                    html.Div(
                        [
                            dmc.Select(id="tag-old", label=say("tag_old"), data=[], searchable=True, size="xs"),
                            dmc.TextInput(id="tag-new", label=say("tag_new"), value="", size="xs"),
                            html.Button(say("rename"), id="tag-rename", className="small-button"),
                        ],
                        className="controls end",
                    ),
                ],
                className="rename-tag",
            ),
        ],
    )


def notes_card(facts: Facts, language: str) -> Component:
    """Return the tab of a run's tags and note."""
    say = partial(text, language)
    tags, note = list(map(readable, facts.notes.tags)), readable(facts.notes.note)
    return card(
        say("tab_notes"),
        dcc.Store(id="own-shown", data={"tags": tags, "notes": {facts.name: note}}),
        dmc.TagsInput(id="own-tags", label=say("tags"), placeholder=say("tags_hint"), value=tags, maxTags=30),
        dmc.Textarea(id="own-note", label=say("note"), autosize=True, minRows=6, maxRows=30, value=note, mt="sm"),
        dialog_foot(say("save"), "own-save", "primary", disabled=bool(facts.label)),
    )


def add_callbacks(app: Dash, library: Library) -> None:
    """Add what opens the dialog, and what saves the dialog and the tab."""
    _add_rename(app, library)

    @app.callback(
        Output("notes-dialog", "opened"),
        Output("notes-tags", "value"),
        Output("notes-text", "value"),
        Output("tag-old", "data"),
        Output("notes-shown", "data"),
        Input("edit-notes", "n_clicks"),
        SELECTED,
        prevent_initial_call=True,
    )
    def open_notes(clicks: int | None, names: list[str]) -> tuple[Any, Any, Any, Any, Any]:
        chosen = notes_of(library, names)
        all_notes = list(chosen.values())
        if not clicks or not all_notes:
            return no_update, no_update, no_update, no_update, no_update
        everywhere = sorted({readable(tag) for entry in library.entries()[1] for tag in entry.tags})
        note = readable(all_notes[0].note) if len(names) == 1 else ""
        tags = [readable(tag) for tag in all_notes[0].tags if all(tag in notes.tags for notes in all_notes)]
        shown = {"tags": tags, "notes": {name: readable(notes.note) for name, notes in chosen.items()}}
        return True, tags, note, everywhere, shown

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("notes-dialog", "opened", allow_duplicate=True),
        Input("notes-save", "n_clicks"),
        State("notes-tags", "value"),
        State("notes-text", "value"),
        State("notes-shown", "data"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def save_notes(clicks: int | None, tags: list[str], note: str, shown: Any, language: str) -> tuple[Messages, Any]:
        names = _shown_names(shown)  # not the selection, which loses runs that disappear while the dialog is open
        if not clicks or not names:
            return [], no_update
        messages = _save(library, names, shown, tags, note, language)
        return messages, False if succeeded(messages) else no_update  # what was written is not lost with the dialog

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("own-shown", "data"),
        Input("own-save", "n_clicks"),
        SELECTED,
        State("own-tags", "value"),
        State("own-note", "value"),
        State("own-shown", "data"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def save_own(
        clicks: int | None, names: list[str], tags: list[str], note: str, shown: Any, language: str
    ) -> tuple[Messages, Any]:
        if not clicks:
            return [], no_update
        messages = _save(library, names, shown, tags, note, language)
        seen = {"tags": list(map(readable, tags or ())), "notes": dict.fromkeys(names, readable(note or ""))}
        return messages, seen if succeeded(messages) else no_update


def _save(
    library: Library, names: Sequence[str], shown: Any, tags: list[str] | None, note: str | None, language: str
) -> Messages:
    """Save tags and the note of runs; of several, an empty note leaves each its own."""

    def save(name: str) -> None:
        folder = library.writable_folder(name)
        before = _shown_notes(read_notes(folder), shown, name)
        words = note or ("" if len(names) == 1 else before.note)
        merge_notes(folder, before, replace(before, tags=tuple(tags or ()), note=words))

    return act_on_each(names, save, text(language, "saved"))


def _add_rename(app: Dash, library: Library) -> None:
    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("notes-dialog", "opened", allow_duplicate=True),
        Input("tag-rename", "n_clicks"),
        State("tag-old", "value"),
        State("tag-new", "value"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def rename_tag(clicks: int | None, old: str | None, new: str | None, language: str) -> tuple[Messages, Any]:
        if not clicks or not old or not (new or "").strip():
            return [], no_update
        tagged = [entry.name for entry in library.entries()[1] if old in entry.tags]

        def put(name: str) -> None:
            folder = library.writable_folder(name)
            notes = read_notes(folder)
            tags = tuple(str(new) if tag == old else tag for tag in notes.tags)
            merge_notes(folder, notes, replace(notes, tags=tags))

        return act_on_each(tagged, put, text(language, "renamed", count=len(tagged))), False


def _shown_names(shown: Any) -> list[str]:
    notes = shown.get("notes") if isinstance(shown, Mapping) else None
    return [name for name in notes if isinstance(name, str)] if isinstance(notes, Mapping) else []


def _shown_notes(current: Notes, shown: Any, name: str) -> Notes:
    """Return the notes that a page showed before they were edited; empty if it does not say.

    Where they equal those in the file, they get the file's form, of which a page cannot show every detail.
    """
    shown = shown if isinstance(shown, Mapping) else {}
    tags, notes = shown.get("tags"), shown.get("notes")
    note = notes.get(name) if isinstance(notes, Mapping) else None
    known = {readable(tag): tag for tag in current.tags}
    return Notes(
        tuple(known.get(tag, tag) for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        current.note if note == readable(current.note) else note if isinstance(note, str) else "",
        current.archived,
    )
