"""What people do to runs of the table with a dialog: rename, move to a project, bring back from the trash."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from darkit.dashboard.pages.feedback import LANGUAGE, SELECTED, Messages, act_on_each, message, succeeded
from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import dialog, dialog_foot, moment
from darkit.dashboard.pages.undo import Undos
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts import text
from darkit.errors import DarkitError
from darkit.runs.notes import set_project
from darkit.runs.rename import rename_run
from darkit.runs.trash import Deleted, list_trash, restore

_MOST_SHOWN = 300  # runs of the trash


def rename_dialog(language: str) -> Component:
    """Return the dialog that gives a run another name."""
    say = partial(text, language)
    return dialog(
        "rename",
        say("rename_title"),
        language,
        [
            html.P(say("rename_text"), className="muted"),
            dmc.TextInput(id="rename-name", value="", label=say("tag_new")),
            dialog_foot(say("rename"), "rename-now", "primary"),
        ],
    )


def move_dialog(language: str) -> Component:
    """Return the dialog that moves runs to a project."""
    say = partial(text, language)
    return dialog(
        "move",
        say("move"),
        language,
        [
            dmc.Autocomplete(
                id="move-project", value="", data=[], label=say("col_project"), placeholder=say("no_project")
            ),
            dialog_foot(say("move"), "move-now", "primary"),
        ],
    )


def trash_dialog(language: str) -> Component:
    """Return the dialog that shows the deleted runs."""
    return dialog("trash", text(language, "trash"), language, [html.Div(id="trash-list")])


def trash_table(deleted: Sequence[Deleted], language: str) -> Component:
    """Return the deleted runs, the latest first, each with a button that brings it back."""
    if not deleted:
        return html.P(text(language, "trash_empty"), className="muted")
    rows = [
        html.Tr(
            [
                html.Td(readable(one.name), className="wrap"),
                html.Td(moment(one.time), className="short"),
                html.Td(
                    html.Button(
                        text(language, "restore"),
                        className="small-button restore",
                        **{
                            "data-restore": json.dumps([readable(one.name), one.deletion]),
                            "aria-label": text(language, "restore_run", name=readable(one.name)),
                        },
                    )
                ),
            ]
        )
        for one in deleted[:_MOST_SHOWN]
    ]
    head = html.Tr([*(html.Th(text(language, word)) for word in ("col_name", "deleted_at")), html.Td()])
    left_out = len(deleted) - len(rows)
    return html.Div(
        [
            html.Table([html.Thead(head), html.Tbody(rows)], className="values trash"),
            html.P(text(language, "trash_more", count=left_out), className="muted") if left_out else None,
        ],
        className="scroll-x",
        tabIndex=0,
    )


def add_callbacks(app: Dash, library: Library, undos: Undos) -> None:
    """Add the callbacks of the dialogs."""
    _add_rename(app, library, undos)
    _add_move(app, library, undos)
    _add_trash(app, library)


def _add_rename(app: Dash, library: Library, undos: Undos) -> None:
    @app.callback(
        Output("rename-dialog", "opened"),
        Output("rename-name", "value"),
        Input("rename", "n_clicks"),
        SELECTED,
        prevent_initial_call=True,
    )
    def open_rename(clicks: int | None, names: list[str]) -> tuple[Any, Any]:
        return (True, readable(names[0])) if clicks and len(names) == 1 else (no_update, no_update)

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("rename-dialog", "opened", allow_duplicate=True),
        Input("rename-now", "n_clicks"),
        State("rename-name", "value"),
        SELECTED,
        LANGUAGE,
        prevent_initial_call=True,
    )
    def rename(clicks: int | None, new: str | None, names: list[str], language: str) -> tuple[Messages, Any]:
        if not clicks or len(names) != 1 or not (new or "").strip():
            return [], no_update
        wanted = str(new).strip()

        def put(name: str) -> Callable[[], object]:
            folder = library.writable_folder(name)
            renamed = rename_run(folder.parent, folder.name, wanted)
            return lambda: rename_run(renamed.parent, renamed.name, folder.name)

        done = text(language, "run_renamed", old=readable(names[0]), new=readable(wanted))
        messages = act_on_each(names, put, done, undos, language)
        return messages, False if succeeded(messages) else no_update


def _add_move(app: Dash, library: Library, undos: Undos) -> None:
    @app.callback(
        Output("move-dialog", "opened"),
        Output("move-project", "data"),
        Output("move-project", "value"),
        Input("move", "n_clicks"),
        SELECTED,
        prevent_initial_call=True,
    )
    def open_move(clicks: int | None, names: list[str]) -> tuple[Any, Any, Any]:
        if not clicks or not names:
            return no_update, no_update, no_update
        chosen = set(names)
        projects = {entry.name: str(entry.row["project"]) for entry in library.entries()[1]}
        own = {projects.get(name, "") for name in chosen}
        return True, sorted({project for project in projects.values() if project}), own.pop() if len(own) == 1 else ""

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("move-dialog", "opened", allow_duplicate=True),
        Input("move-now", "n_clicks"),
        State("move-project", "value"),
        SELECTED,
        LANGUAGE,
        prevent_initial_call=True,
    )
    def move(clicks: int | None, project: str | None, names: list[str], language: str) -> tuple[Messages, Any]:
        if not clicks or not names:
            return [], no_update
        wanted = (project or "").strip()

        def put(name: str) -> Callable[[], object]:
            folder, before = library.writable_folder(name), library.facts(name).project
            set_project(folder, wanted)
            return lambda: set_project(library.writable_folder(name), before)

        key = "moved_to" if wanted else "moved_out"
        done = text(language, key, count=f"{len(names):,}", project=readable(wanted))
        messages = act_on_each(names, put, done, undos, language)
        return messages, False if succeeded(messages) else no_update


def _add_trash(app: Dash, library: Library) -> None:
    @app.callback(
        Output("trash-dialog", "opened"),
        Output("trash-list", "children"),
        Input("open-trash", "n_clicks"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def open_trash(clicks: int | None, language: str) -> tuple[Any, Any]:
        if not clicks:
            return no_update, no_update
        try:
            return True, trash_table(list_trash(library.root), language)
        except DarkitError as error:
            return True, html.P(readable(str(error)), className="error")

    @app.callback(
        Output("notify", "sendNotifications", allow_duplicate=True),
        Output("trash-list", "children", allow_duplicate=True),
        Input("restore", "data"),
        LANGUAGE,
        prevent_initial_call=True,
    )
    def bring_back(wanted: str | None, language: str) -> tuple[Messages, Any]:
        try:
            name, deletion = json.loads(wanted or "")
            known = next(
                (one for one in list_trash(library.root) if [readable(one.name), one.deletion] == [name, deletion]),
                None,
            )
        except (ValueError, TypeError):
            return [], no_update
        except DarkitError as error:
            return [message(readable(str(error)), "red")], no_update
        try:
            restore(library.root, known.name if known else str(name), deletion=str(deletion))
            said = message(text(language, "restored", name=readable(str(name))), "teal")
        except DarkitError as error:
            said = message(readable(str(error)), "red")
        return [said], trash_table(list_trash(library.root), language)
