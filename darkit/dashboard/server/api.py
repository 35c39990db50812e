"""The routes that the pages' scripts call: rows, figures, updates of live runs, exports, and answers to prompts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from darkit.dashboard.charts import export
from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.colours import places_of
from darkit.dashboard.charts.compare import parallel, scatter
from darkit.dashboard.charts.distribution import distribution_figure
from darkit.dashboard.charts.groups import ALL_BUT_SEED
from darkit.dashboard.pages.notes import save_words
from darkit.dashboard.reading.asked import asked
from darkit.dashboard.reading.bundle import bundle
from darkit.dashboard.reading.entries import Entry
from darkit.dashboard.reading.events import Event, Events
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.reading.media import histograms_of, list_media, medium_content
from darkit.dashboard.reading.zones import checked_zone
from darkit.dashboard.server.predict import Prompts
from darkit.dashboard.view import MOST_CHARTS, read_names, read_offset, read_text, read_texts, read_view
from darkit.errors import ConfigError, DarkitError, NotesChangedError, RunNotFoundError
from darkit.remote.homes import Homes
from darkit.runs.checkpoints import find_checkpoint
from darkit.runs.console import follow_console
from darkit.runs.notes import set_colour
from darkit.runs.status import ALIVE
from darkit.runs.views import read_views, save_view

_MOST_COLUMNS = 100  # of config values, and of metrics beyond those that every row has
_CONSOLE = 512 * 1024  # bytes of the end of a console that a page shows


def add_routes(
    server: FastAPI,
    library: Library,
    charts: Charts,
    prompts: Prompts,
    stop: Callable[[str], bool],
    events: Events,
    homes: Homes | None = None,
) -> None:
    """Add the routes below ``/api`` to a server; ``stop`` ends it if the given key is right."""

    @server.exception_handler(DarkitError)
    async def refuse(_: Request, error: DarkitError) -> JSONResponse:
        return JSONResponse({"error": readable(str(error))}, 404 if isinstance(error, RunNotFoundError) else 400)

    @server.post("/api/runs")
    async def runs(request: Request) -> Response:
        body = await request.json()
        return Response(await run_in_threadpool(table_rows, library, body), media_type="application/json")

    @server.post("/api/homes")
    async def states(request: Request) -> JSONResponse:
        await request.json()
        found = await run_in_threadpool(homes.states) if homes is not None else []
        shown = [{**asdict(one), "address": readable(one.address), "problem": readable(one.problem)} for one in found]
        return JSONResponse({"now": time.time(), "homes": shown})

    @server.post("/api/events")
    async def happened(request: Request) -> JSONResponse:
        since = (await request.json()).get("since")
        last, new = await run_in_threadpool(_look, events, since if type(since) is int else None)
        return JSONResponse({"last": last, "events": [asdict(event) for event in new]})

    @server.post("/api/charts")
    async def figures(request: Request) -> Response:
        body = await request.json()
        view, names = read_view(body.get("view")), read_names(body.get("runs"))
        wanted = body.get("charts")
        titles = None if wanted is None else read_texts(wanted, MOST_CHARTS)
        return Response(await run_in_threadpool(charts.draw, names, view, titles), media_type="application/json")

    @server.post("/api/news")
    async def news(request: Request) -> JSONResponse:
        body = await request.json()
        view, names = read_view(body.get("view")), read_names(body.get("runs"))
        cursors = read_cursors(body.get("cursors"))
        return JSONResponse(await run_in_threadpool(charts.news, names, view, cursors))

    @server.post("/api/parallel")
    async def parallel_coordinates(request: Request) -> JSONResponse:
        body = await request.json()
        names, keys = read_names(body.get("runs")), read_texts(body.get("keys", []), 20)
        metric, dark = read_text(body, "metric"), body.get("dark") is True
        flipped = read_texts(body.get("flipped", []), 21)
        return JSONResponse(await run_in_threadpool(parallel, charts, names, keys, metric, dark, flipped))

    @server.post("/api/scatter")
    async def points_of_runs(request: Request) -> JSONResponse:
        body = await request.json()
        names, key, metric = read_names(body.get("runs")), read_text(body, "key"), read_text(body, "metric")
        how = {name: body.get(name) is True for name in ("log_x", "log_y", "dark")}
        return JSONResponse(await run_in_threadpool(partial(scatter, charts, names, key, metric, **how)))

    @server.post("/api/csv")
    async def points(request: Request) -> StreamingResponse:
        body = await request.json()
        view, names = read_view(body.get("view")), read_names(body.get("runs"))
        shown = await run_in_threadpool(charts.chosen, names, view.source)
        return StreamingResponse(export.chart_csv(read_text(body, "chart"), shown, view), media_type="text/csv")

    @server.post("/api/page")
    async def page(request: Request) -> Response:
        body = await request.json()
        view, names = read_view(body.get("view")), read_names(body.get("runs"))
        return Response(
            await run_in_threadpool(export.comparison_page, charts, names, view), media_type="text/html; charset=utf-8"
        )

    @server.post("/api/notes")
    async def notes(request: Request) -> JSONResponse:
        body = await request.json()
        try:
            return JSONResponse(await run_in_threadpool(save_words, library, body))
        except NotesChangedError as error:  # of two people who write; the request was right
            return JSONResponse({"problem": str(error)})

    @server.post("/api/media")
    async def media(request: Request) -> JSONResponse:
        body = await request.json()
        names = read_names(body.get("runs"))
        return JSONResponse(await run_in_threadpool(lambda: list_media(library.existing(names))))

    @server.post("/api/medium")
    async def medium(request: Request) -> Response:
        body = await request.json()
        facts, file = library.facts(read_text(body, "run")), read_text(body, "file")
        content, kind = await run_in_threadpool(medium_content, facts.folder, file)
        return Response(content, media_type=kind)

    @server.post("/api/distribution")
    async def distribution(request: Request) -> JSONResponse:
        body = await request.json()
        facts, key = library.facts(read_text(body, "run")), read_text(body, "key")
        found = await run_in_threadpool(histograms_of, facts.folder, key)
        index = facts.notes.colour
        place = places_of([facts.name], {} if index is None else {facts.name: index})[0]
        language = read_text(body, "language")
        return JSONResponse(distribution_figure(found, facts.name, place, body.get("dark") is True, language))

    @server.post("/api/console")
    async def console(request: Request) -> JSONResponse:
        body = await request.json()
        facts, after = library.facts(read_text(body, "run")), body.get("after", 0)
        if type(after) is not int or after < 0:
            raise ConfigError("after must be a whole number of at least 0.")
        printed, end, continues = await run_in_threadpool(follow_console, facts.folder, after, _CONSOLE)
        alive = facts.state in ALIVE
        return JSONResponse({"text": readable(printed), "end": end, "continues": continues, "alive": alive})

    @server.post("/api/colour")
    async def colour(request: Request) -> JSONResponse:
        body = await request.json()
        wanted = body.get("colour")
        if wanted is not None and type(wanted) is not int:
            raise ConfigError("colour must be a whole number or null.")
        folder = library.writable_folder(read_text(body, "run"))
        await run_in_threadpool(set_colour, folder, wanted)
        return JSONResponse({"saved": True})

    @server.post("/api/views")
    async def views(request: Request) -> JSONResponse:
        body = await request.json()
        home = library.root.parent
        if "name" not in body:
            return JSONResponse(await run_in_threadpool(read_views, home))
        name, address = read_text(body, "name"), body.get("address")
        if address is not None and not isinstance(address, str):
            raise ConfigError("address must be a string.")
        return JSONResponse(await run_in_threadpool(save_view, home, name, address and readable(address)))

    @server.post("/api/bundle")
    async def logs(request: Request) -> StreamingResponse:
        body = await request.json()
        all_facts = [library.facts(name) for name in read_names(body.get("runs"))]
        return StreamingResponse(await run_in_threadpool(bundle, all_facts), media_type="application/zip")

    @server.post("/api/predict")
    async def predict(request: Request) -> StreamingResponse:
        body = await request.json()
        folder = library.writable_folder(body.get("name"))  # a copy has no checkpoints
        prompt, tokens, temperature = prompts.check(
            body.get("prompt"), body.get("tokens", 200), body.get("temperature", 0.8)
        )
        wanted = body.get("checkpoint") or None
        if wanted is not None and not isinstance(wanted, str):
            raise ConfigError("checkpoint must be a string.")
        checkpoint = find_checkpoint(folder, wanted) if wanted else None
        answer = prompts.answer(folder, checkpoint, prompt, tokens, temperature)
        return StreamingResponse(answer, media_type="text/plain; charset=utf-8")

    @server.post("/api/shutdown")
    async def shutdown(request: Request) -> JSONResponse:
        body = await request.json()
        key = body.get("key")
        if not isinstance(key, str) or not stop(key):
            await asyncio.sleep(0.2)
            return JSONResponse({"error": "Wrong key."}, 403)
        return JSONResponse({"stopped": True})


def _look(events: Events, since: int | None) -> tuple[int, list[Event]]:
    """Look at the runs; in a thread, as another look may hold the events for seconds while new runs are read."""
    events.look()
    return events.since(since)


def table_rows(library: Library, body: Mapping[str, Any]) -> bytes:
    """Return as JSON the rows of the table that changed since a version, with the values of some columns.

    The column ``*`` stands for all config keys in which runs differ, by which those that repeat each other are grouped.
    Where rows changed, or with ``ask``, also the addresses of those that the ``query`` asks for (`asked`).
    With ``bare`` there are no rows: only the addresses of all runs, where they changed.
    """
    since = body.get("since")
    since = since if isinstance(since, int) else 0
    columns = read_texts(body.get("columns", []), _MOST_COLUMNS)
    metrics = read_texts(body.get("metrics", []), _MOST_COLUMNS)
    query, offset, zone = body.get("query", ""), read_offset(body), checked_zone(body.get("zone"))
    if not isinstance(query, str):
        raise ConfigError("query must be a string.")
    query = readable(query).strip()  # `asked` says it of one that is too long
    version, membership, entries = library.changes()
    if since > version:  # a version of another server
        since = 0
    differing = library.differing_keys()
    every = library.all_differing_keys() if ALL_BUT_SEED in columns else []
    shown = [*dict.fromkeys([*columns, *differing, *every])]
    changed = [] if body.get("bare") is True else [entry for entry in entries if entry.version > since]
    rows = [row_text(entry, shown, metrics) for entry in changed]
    found: dict[str, Any] = {}
    if query and (rows or not since or body.get("ask") is True):
        found = asked(query, entries, library.config_keys(), [name for name, *_ in library.metrics()], offset, zone)
    rest = {
        "version": version,
        "names": [entry.name for entry in entries] if since < membership or not since else None,
        "keys": library.config_keys() if rows else None,
        "metrics": library.metrics() if rows else None,
        "wide": any(entry.more for entry in entries) if rows else None,
        "left_out": library.left_out,
        "waiting": library.waiting,
        "differing": differing if rows else None,
        "every_differing": every if rows else None,
        "query": query,
        **found,
    }
    return f'{json.dumps(rest)[:-1]}, "rows": [{",".join(rows)}]}}'.encode()


def row_text(entry: Entry, columns: Sequence[str], metrics: Sequence[str] = ()) -> str:
    """Return a row as JSON, with the config values of some columns and the values of some metrics."""
    values = {key: entry.config[key] for key in columns if key in entry.config}
    config = json.dumps(values, ensure_ascii=False, allow_nan=False) if values else "{}"
    text = f'{entry.text[:-1]},"config":{config}'
    if metrics and entry.more:
        every = json.loads(entry.more)
        text += f',"more":{json.dumps({name: every[name] for name in metrics if name in every}, ensure_ascii=False)}'
    return f"{text}}}"


def read_cursors(values: object) -> dict[str, dict[str, list[int]]]:
    """Check the cursors of a page: for each chart and run the generation and the number of rows shown.

    Raises:
        ConfigError: They are malformed.
    """
    if not isinstance(values, Mapping) or len(values) > MOST_CHARTS:
        raise ConfigError(f"cursors must be a JSON object of at most {MOST_CHARTS} charts.")
    for seen in values.values():
        if not isinstance(seen, Mapping):
            raise ConfigError("cursors must hold an object for each chart.")
        for cursor in seen.values():
            sound = isinstance(cursor, list) and len(cursor) == 2 and all(type(part) is int for part in cursor)
            if not sound or min(cursor) < 0:
                raise ConfigError("A cursor must be a list of two integers of at least 0.")
    return {str(title): {str(name): list(cursor) for name, cursor in seen.items()} for title, seen in values.items()}
