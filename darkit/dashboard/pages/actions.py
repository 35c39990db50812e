"""What people do to runs besides notes: archive, delete and stop, each with its dialog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from darkit.dashboard.pages.feedback import LANGUAGE, SELECTED, Messages, act_on_each, message, notes_of, succeeded
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import dialog, dialog_foot
from darkit.dashboard.pages.undo import Undos
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import text
from darkit.errors import DarkitError, listing
from darkit.runs.notes import merge_notes, read_notes
from darkit.runs.requests import request_stop
from darkit.runs.status import ALIVE
from darkit.runs.trash import move_to_trash, restore

_NAMED = 8  # runs of a deletion that are named


def add_callbacks(app: Dash, library: Library, undos: Undos) -> None:
    """Add the callbacks of archiving, deleting and stopping, and of undoing."""
    _add_archive(app, library, undos)
    _add_delete(app, library, undos)
    _add_stop(app, library)
    _add_undo(app, undos)


def delete_dialog(language: str) -> Component:
    """Return the dialog that confirms a deletion by the run's name, or that of several by their number."""
    say = partial(text, language)
    return dialog(
        "delete",
        say("delete_title"),
        language,
        [
            html.P(say("delete_text"), id="delete-what"),
            html.P(html.Code(id="delete-text"), className="wrap"),
            dmc.TextInput(id="delete-name", value="", **{"aria-label": say("col_name")}),
            dialog_foot(say("delete"), "delete-now", "danger", disabled=True),
        ],
    )


def stop_dialog(language: str) -> Component:
    """Return the dialog that confirms a stop."""
    return dialog(
        "stop",
        text(language, "stop_title"),
        language,
        [
            html.P(text(language, "stop_text")),
            dialog_foot(text(language, "stop"), "stop-now", "danger"),
        ],
    )


def _add_archive(app: Dash, library: Library, undos: Undos) -> None:
    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Input("archive", "n_clicks"),
        SELECTED,
        LANGUAGE,
        prevent_initial_call=True,
    )
    def archive(clicks: int | None, names: list[str], language: str) -> Messages:
        if not clicks or not names:
            return []
        away = not all(notes.archived for notes in notes_of(library, names).values())

        def put(name: str) -> Callable[[], object]:
            folder = library.writable_folder(name)
            notes = read_notes(folder)
            after = merge_notes(folder, notes, replace(notes, archived=away))
            return lambda: merge_notes(library.writable_folder(name), after, notes)

        said = text(language, "archived_count" if away else "unarchived_count", count=f"{len(names):,}")
        return act_on_each(names, put, said, undos, language)


def _add_delete(app: Dash, library: Library, undos: Undos) -> None:
    @app.callback(
        Output("delete-dialog", "opened"),
        Output("delete-dialog", "title"),
        Output("delete-what", "children"),
        Output("delete-text", "children"),
        Output("delete-name", "value"),
        Input("delete", "n_clicks"),
        SELECTED,
        LANGUAGE,
        prevent_initial_call=True,
    )
    def open_delete(clicks: int | None, names: list[str], language: str) -> tuple[Any, ...]:
        if not clicks or not names:
            return (no_update,) * 5
        say, count = partial(text, language), len(names)
        if count == 1:
            return True, say("delete_title"), say("delete_text"), readable(names[0]), ""
        title, what = say("delete_many_title", count=f"{count:,}"), say("delete_many", count=count)
        return True, title, what, readable(listing(names, limit=_NAMED)), ""

    app.clientside_callback(
        ClientsideFunction("darkit", "sameName"),
        Output("delete-now", "disabled"),
        Input("delete-name", "value"),
        SELECTED,
    )

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("delete-dialog", "opened", allow_duplicate=True),
        Output("viewed", "data"),
        Input("delete-now", "n_clicks"),
        State("delete-name", "value"),
        SELECTED,
        LANGUAGE,
        prevent_initial_call=True,
    )
    def delete(clicks: int | None, typed: str, names: list[str], language: str) -> tuple[Messages, Any, Any]:
        if not clicks or typed != (names[0] if len(names) == 1 else str(len(names))):
            return [], no_update, no_update

        def remove(address: str) -> Callable[[], object]:
            folder = library.writable_folder(address)
            deletion = move_to_trash(folder.parent, folder.name).parent.name
            return lambda: restore(folder.parent, folder.name, deletion=deletion)

        said = readable(typed) if len(names) == 1 else text(language, "runs_count", count=len(names))
        messages = act_on_each(names, remove, text(language, "deleted", name=said), undos, language)
        return messages, False, {"deleted": names} if succeeded(messages) else no_update

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
        SELECTED,
        LANGUAGE,
        prevent_initial_call=True,
    )
    def stop(clicks: int | None, names: list[str], language: str) -> tuple[Messages, Any]:
        if not clicks or len(names) != 1:
            return [], no_update
        try:
            facts = library.facts(names[0])
            if facts.state not in ALIVE:
                return [message(text(language, "stop_ended"), "orange")], False
            request_stop(library.writable_folder(names[0]), by="dashboard")
        except DarkitError as error:
            return [message(readable(str(error)), "red")], False
        return [message(text(language, "stop_asked"), "teal")], False


def _add_undo(app: Dash, undos: Undos) -> None:
    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Input("undo", "data"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def undo(token: str | None, language: str) -> Messages:
        if not token:
            return []
        try:
            count = undos.undo(token)
        except DarkitError as error:
            return [message(readable(str(error)), "red")]
        return [message(text(language, "undone", count=f"{count:,}"), "teal")]
