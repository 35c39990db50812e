"""Tags and notes of runs: the dialog of the table, the tab of a run, and what saves them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from darkit.dashboard.pages.controls import follow
from darkit.dashboard.pages.feedback import LANGUAGE, SELECTED, Messages, act_on_each, notes_of, succeeded
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import card, dialog, dialog_foot
from darkit.dashboard.pages.undo import Undos
from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import text
from darkit.errors import ConfigError
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
            dmc.MultiSelect(
                id="tags-away", label=say("tags_away"), data=[], value=[], searchable=True, mt="sm", display="none"
            ),
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
    only_read = bool(facts.label)  # a run of another home
    shown = {"name": facts.name, "tags": tags, "note": note, "made": secrets.token_hex(8)}  # another one in every page
    return card(
        say("tab_notes"),
        dmc.TagsInput(
            id="own-tags", label=say("tags"), placeholder=say("tags_hint"), value=tags, maxTags=30, disabled=only_read
        ),
        dmc.Textarea(
            id="own-note",
            label=say("note"),
            autosize=True,
            minRows=6,
            maxRows=30,
            value=note,
            mt="sm",
            readOnly=only_read,
        ),
        html.Div(
            [
                html.Span(id="own-status", role="status", className="muted"),
                html.Button(say("save"), id="own-save", className="small-button primary", disabled=only_read),
            ],
            className="dialog-foot",
            id="own-foot",
            **{"data-shown": json.dumps(shown)},
        ),
    )


def save_words(library: Library, body: Mapping[str, Any]) -> dict[str, Any]:
    """Save what a page changed of a run's tags and note: its fields ``name``, ``before`` and ``after``.

    Returns:
        The tags and the note as they are now, with the changes of others.

    Raises:
        NotesChangedError: The note was changed here and elsewhere.
        DarkitError: The run does not exist or is only read, or a text is too long.
    """
    name, before, after = body.get("name"), body.get("before"), body.get("after")
    if not isinstance(name, str):
        raise ConfigError("name must be a string.")
    folder = library.writable_folder(name)
    shown = _shown_notes(read_notes(folder), _fields(before, name), name)
    wanted = _fields(after, name)
    written = merge_notes(
        folder, shown, replace(shown, tags=_kept_forms(wanted["tags"], shown), note=wanted["notes"][name])
    )
    return {"tags": list(map(readable, written.tags)), "note": readable(written.note)}


def _fields(values: Any, name: str) -> dict[str, Any]:
    tags, note = (values.get("tags"), values.get("note")) if isinstance(values, Mapping) else (None, None)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags) or not isinstance(note, str):
        raise ConfigError("Notes must have a list of tags and a note.")
    return {"tags": tags, "notes": {name: note}}


def _kept_forms(tags: Sequence[str], shown: Notes) -> tuple[str, ...]:
    """Return tags in the form in which the file has them, of which a page cannot show every detail."""
    forms = {readable(tag): tag for tag in shown.tags}
    return tuple(forms.get(tag, tag) for tag in tags)


def add_callbacks(app: Dash, library: Library, undos: Undos) -> None:
    """Add what opens and saves the dialog, and what lets the page's script follow the tab."""
    _add_rename(app, library, undos)
    follow(app, "notes", [Input("own-tags", "value"), Input("own-note", "value")], "own-foot")

    @app.callback(
        Output("notes-dialog", "opened"),
        Output("notes-tags", "value"),
        Output("notes-text", "value"),
        Output("tag-old", "data"),
        Output("notes-shown", "data"),
        Output("tags-away", "data"),
        Output("tags-away", "value"),
        Output("tags-away", "display"),
        Input("edit-notes", "n_clicks"),
        SELECTED,
        prevent_initial_call=True,
    )
    def open_notes(clicks: int | None, names: list[str]) -> tuple[Any, ...]:
        chosen = notes_of(library, names)
        all_notes = list(chosen.values())
        if not clicks or not all_notes:
            return (no_update,) * 8
        note = readable(all_notes[0].note) if len(names) == 1 else ""
        tags = [readable(tag) for tag in all_notes[0].tags if all(tag in notes.tags for notes in all_notes)]
        shown = {"tags": tags, "notes": {name: readable(notes.note) for name, notes in chosen.items()}}
        some = sorted({readable(tag) for notes in all_notes for tag in notes.tags} - set(tags))
        return True, tags, note, _every_tag(library), shown, some, [], "block" if some else "none"

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("notes-dialog", "opened", allow_duplicate=True),
        Input("notes-save", "n_clicks"),
        State("notes-tags", "value"),
        State("notes-text", "value"),
        State("notes-shown", "data"),
        State("tags-away", "value"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def save_notes(
        clicks: int | None, tags: list[str], note: str, shown: Any, away: list[str] | None, language: str
    ) -> tuple[Messages, Any]:
        names = _shown_names(shown)  # not the selection, which loses runs that disappear while the dialog is open
        if not clicks or not names:
            return [], no_update
        messages = _save(library, names, _with_tags(shown, away or []), tags, note, language, undos)
        return messages, False if succeeded(messages) else no_update  # what was written is not lost with the dialog


def _with_tags(shown: Any, away: Sequence[str]) -> Any:
    """Return what a page showed with tags that only some of the runs have: not saved again, they are taken away."""
    tags = shown.get("tags")
    return {**shown, "tags": [*(tags if isinstance(tags, list) else []), *away]}


def _save(
    library: Library,
    names: Sequence[str],
    shown: Any,
    tags: list[str] | None,
    note: str | None,
    language: str,
    undos: Undos,
) -> Messages:
    """Save tags and the note of runs; of several, an empty note leaves each its own."""

    def save(name: str) -> Callable[[], object]:
        folder = library.writable_folder(name)
        there = read_notes(folder)
        before = _shown_notes(there, shown, name)
        words = note or ("" if len(names) == 1 else before.note)
        after = merge_notes(folder, before, replace(before, tags=tuple(tags or ()), note=words))
        return lambda: merge_notes(library.writable_folder(name), after, there)

    return act_on_each(names, save, text(language, "saved"), undos, language)


def _add_rename(app: Dash, library: Library, undos: Undos) -> None:
    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("tag-old", "data", allow_duplicate=True),
        Output("tag-old", "value"),
        Output("tag-new", "value"),
        Output("notes-tags", "value", allow_duplicate=True),
        Output("notes-shown", "data", allow_duplicate=True),
        Output("tags-away", "data", allow_duplicate=True),
        Output("tags-away", "value", allow_duplicate=True),
        Input("tag-rename", "n_clicks"),
        State("tag-old", "value"),
        State("tag-new", "value"),
        State("notes-tags", "value"),
        State("notes-shown", "data"),
        State("tags-away", "data"),
        State("tags-away", "value"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def rename_tag(
        clicks: int | None,
        old: str | None,
        new: str | None,
        tags: Any,
        shown: Any,
        some: Any,
        away: Any,
        language: str,
    ) -> tuple[Any, ...]:
        if not clicks or not old or not (new or "").strip():
            return [], *(no_update,) * 7
        tagged = [entry.name for entry in library.entries()[1] if old in entry.tags and library.is_writable(entry.name)]

        def put(name: str) -> Callable[[], object]:
            folder = library.writable_folder(name)
            notes = read_notes(folder)
            after = merge_notes(folder, notes, replace(notes, tags=tuple(_renamed(notes.tags, old, str(new)))))
            return lambda: merge_notes(library.writable_folder(name), after, notes)

        messages = act_on_each(tagged, put, text(language, "renamed", count=len(tagged)), undos, language)
        if not succeeded(messages):
            return messages, *(no_update,) * 7
        # the dialog stays open: what was written in it is not saved yet
        fields = [_renamed(one, old, str(new)) for one in (tags, some, away)]
        before = _shown_with(shown, old, str(new))
        return messages, _every_tag(library, old, str(new)), None, "", fields[0], before, *fields[1:]


def _every_tag(library: Library, old: str = "", new: str = "") -> list[str]:
    """Return the tags of all runs; those of which one was just renamed may not be read again yet."""
    known = [
        _renamed(entry.tags, old, new) if library.is_writable(entry.name) else entry.tags
        for entry in library.entries()[1]
    ]
    return sorted({readable(tag) for tags in known for tag in tags})


def _renamed(tags: object, old: str, new: str) -> list[str]:
    """Return tags, each once, with a new name in the place of an old one; what is no list of tags counts as empty."""
    known = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list | tuple) else []
    return list(dict.fromkeys(readable(" ".join(new.split()) if tag == old else tag) for tag in known))


def _shown_with(shown: object, old: str, new: str) -> dict[str, Any]:
    """Return what a page showed with a new name of a tag."""
    values = shown if isinstance(shown, Mapping) else {}
    notes = values.get("notes")
    notes = notes if isinstance(notes, Mapping) else {}
    words = {readable(name): readable(note) for name, note in notes.items() if isinstance(note, str)}
    return {"tags": _renamed(values.get("tags"), old, new), "notes": words}


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
