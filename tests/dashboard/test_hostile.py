"""Run directories made to break the reader: every file as what no file should be, and numbers without end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dash.development.base_component import Component

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.compare import parallel
from darkit.dashboard.charts.export import chart_csv, comparison_page
from darkit.dashboard.pages.compare import compare_page
from darkit.dashboard.pages.run import run_page
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.server.agents import RunDetails, run_details
from darkit.dashboard.server.api import table_rows
from darkit.dashboard.view import View, read_address, read_view
from darkit.errors import ConfigError
from darkit.runs import files
from tests.dashboard.parts import make_run

FILES = (
    files.STATUS,
    files.RUN,
    files.MODEL_CONFIG,
    files.TRAINER_CONFIG,
    files.COMPOSED_CONFIG,
    files.LOG,
    files.SYSTEM_LOG,
    files.NOTES,
    files.TOKENIZER,
    files.MODEL_SOURCE,
    "iter-5-ckpt.json",
    "iter-5-ckpt.pth",
)
HUGE = "1" + "0" * 400


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def as_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def as_folder(path: Path) -> None:
    path.mkdir()


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": as_pipe,
    "socket": as_socket,
    "device": as_device,
    "loop": as_link_to_itself,
    "sparse": as_sparse,
    "folder": as_folder,
}


def sent(value: object) -> None:
    """Make bytes of an answer as the server does."""
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def everything(library: Library, names: list[str], language: str = "en") -> None:
    """Make everything that the pages could ask of these runs."""
    charts = Charts(library)
    sent(json.loads(table_rows(library, {"since": 0, "columns": ["model.a"]})))
    shown = charts.chosen(names, "log")
    _, state = read_address("/compare?" + "&".join(f"run={name}" for name in names))
    for view in (View(), View(axis="wall", smooth=0.5), View(group=("model.a",), log=True), View(source="system")):
        json.loads(charts.draw(names, view, None))
        cursors = {title: {name: [0, 1] for name in names} for run in shown for title in run.series}
        sent(charts.news(names, view, cursors))
        for title in cursors:
            "".join(chart_csv(title, charts.chosen(names, view.source), view)).encode()
    comparison_page(charts, names, View())
    for name in names:
        sent(RunDetails.model_validate(run_details(library, name)).model_dump(mode="json"))
    sent(as_plain(compare_page(language, names, shown, state)))
    sent(parallel(charts, names, ["model.a"], "train_loss", False))
    for run in shown:
        sent(as_plain(run_page(language, run, state)))


def as_plain(components: list[Component]) -> object:
    return json.loads(json.dumps(components, default=lambda one: one.to_plotly_json()))


def test_invalid_unicode_is_replaced(home: Path) -> None:
    root, odd = home / "base", "\ud800"
    folder = make_run(
        root, "odd", 30, state=odd, reason=odd, traceback=odd, host=odd, series={odd: ["step", "train_loss"]}
    )
    for file in (files.MODEL_CONFIG, files.TRAINER_CONFIG):
        (folder / file).write_text(json.dumps({odd: odd, "a": [odd], "device": odd}))
    info = files.read_json(folder / files.RUN)
    strange = dict.fromkeys(("seed", "git", "command", "model", "host"), odd)
    (folder / files.RUN).write_text(json.dumps({**info, **strange, "data": {odd: odd}, "versions": {odd: odd}}))
    note = {"tags": [odd], "note": odd, "evaluations": [{"data": odd, "checkpoint": odd, "metrics": {odd: 1}}]}
    (folder / files.NOTES).write_text(json.dumps(note))
    (folder / "iter-5-ckpt.pth").write_bytes(b"1")
    (folder / "iter-5-ckpt.json").write_text(json.dumps({"size": 1, "sha256": odd, "metrics": {odd: 1}}))
    (folder / files.TOKENIZER).write_text(json.dumps({"model": {"type": odd}, "added_tokens": [{"content": odd}]}))
    library = Library(root, LogCache())
    everything(library, ["odd"])
    assert library.entries()[1][0].row["state"] == "?"
    assert read_view({"group": [odd]}).group == ("?",)


@pytest.mark.few(3)
@pytest.mark.parametrize("kind", list(KINDS))
def test_no_file_of_a_run_is_waited_for_followed_or_read_without_end(home: Path, kind: str) -> None:
    root = home / "base"
    for file in FILES:
        folder = make_run(root, f"{kind}-{file}", 30)
        (folder / file).unlink(missing_ok=True)
        KINDS[kind](folder / file)
    library = Library(root, LogCache())
    everything(library, [f"{kind}-{file}" for file in FILES])
    rows = {entry.name: entry.row for entry in library.entries()[1]}
    for file in (files.STATUS, files.RUN, files.MODEL_CONFIG, files.TRAINER_CONFIG, files.NOTES):
        assert file in rows[f"{kind}-{file}"]["problem"], file


def test_numbers_that_no_float_can_hold_are_shown_and_break_nothing(home: Path) -> None:
    root = home / "base"
    folder = make_run(root, "huge", 30)
    for file in (files.MODEL_CONFIG, files.TRAINER_CONFIG):
        (folder / file).write_text(f'{{"a": {HUGE}, "b": -{HUGE}, "c": [{HUGE}], "d": {{"e": 1e999}}}}')
    (folder / files.NOTES).write_text(f'{{"tags": [{HUGE}], "note": {HUGE}}}')
    numbers = ", ".join(f'"{key}": {HUGE}' for key in ("step", "max_step", "started", "heartbeat", "pid"))
    (folder / files.STATUS).write_text(f'{{"state": "finished", {numbers}}}')
    (folder / "iter-5-ckpt.pth").write_bytes(b"1")
    (folder / "iter-5-ckpt.json").write_text(
        f'{{"size": {HUGE}, "step": {HUGE}, "sha256": {HUGE}, "metrics": {{"a": {HUGE}}}}}'
    )
    log = f"step,epoch,time,lr,train_loss,val_loss\n{HUGE},{HUGE},{HUGE},{HUGE},{HUGE},-{HUGE}\n"
    (folder / files.LOG).write_text(log + "1,1,1,1,1e308,1\n2,1,2,1,-1e308,1\n")
    library = Library(root, LogCache())
    everything(library, ["huge"])
    assert library.facts("huge").config_values()["model.a"].startswith("1000")


@pytest.mark.parametrize("field", ["low", "high", "smooth", "offset"])
def test_a_number_without_end_from_a_client_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        read_view({field: 10**400})


def test_the_valid_part_of_a_malformed_or_overlong_address_is_read() -> None:
    path, state = read_address("/compare?" + "&".join(f"run=a{index}" for index in range(3000)))
    assert path == "/compare"
    assert len(state["runs"]) == 200
    for odd in ("http://[", "//[::1", "/%ff%00?%ff=%00&smooth=nan&smooth=1e999", "?" + "&" * 5000):
        read_address(odd)


@pytest.mark.parametrize("offset", [3600.0, 1e9, 1e17])
def test_a_clock_in_the_future_gives_neither_a_negative_nor_an_absurd_duration(home: Path, offset: float) -> None:
    now = time.time() + offset
    make_run(home / "base", "ahead", 30, state="running", started=now, heartbeat=now + 5, max_step=60)
    library = Library(home / "base", LogCache())
    everything(library, ["ahead"])
    row = library.entries()[1][0].row
    assert row["duration"] is None or 0 <= row["duration"] <= 16
    assert row["eta"] is None or row["eta"] >= 0
