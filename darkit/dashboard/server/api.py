"""The routes that the pages' scripts call: rows, figures, updates of live runs, exports, and answers to prompts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from darkit.dashboard.charts import export
from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.compare import parallel
from darkit.dashboard.reading.entries import Entry
from darkit.dashboard.reading.facts import readable
from darkit.dashboard.reading.library import Library
from darkit.dashboard.server.predict import Prompts
from darkit.dashboard.view import read_names, read_text, read_texts, read_view
from darkit.errors import ConfigError, DarkitError, RunNotFoundError
from darkit.remote.homes import Homes
from darkit.runs.checkpoints import find_checkpoint

_MOST_COLUMNS = 100


def add_routes(
    server: FastAPI,
    library: Library,
    charts: Charts,
    prompts: Prompts,
    stop: Callable[[str], bool],
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

    @server.post("/api/charts")
    async def figures(request: Request) -> Response:
        body = await request.json()
        view, names = read_view(body.get("view")), read_names(body.get("runs"))
        wanted = body.get("charts")
        titles = None if wanted is None else read_texts(wanted, 100)
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
        return JSONResponse(await run_in_threadpool(parallel, charts, names, keys, metric, dark))

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


def table_rows(library: Library, body: Mapping[str, Any]) -> bytes:
    """Return as JSON the rows of the table that changed since a version, with the config values of some columns."""
    since = body.get("since")
    since = since if isinstance(since, int) else 0
    columns = read_texts(body.get("columns", []), _MOST_COLUMNS)
    version, membership, entries = library.changes()
    if since > version:  # a version of another server
        since = 0
    rows = [row_text(entry, columns) for entry in entries if entry.version > since]
    rest = {
        "version": version,
        "names": [entry.name for entry in entries] if since < membership or not since else None,
        "keys": library.config_keys() if rows else None,
        "left_out": library.left_out,
        "waiting": library.waiting,
    }
    return f'{json.dumps(rest)[:-1]}, "rows": [{",".join(rows)}]}}'.encode()


def row_text(entry: Entry, columns: Sequence[str]) -> str:
    """Return a row with the config values of some columns, as JSON."""
    values = {key: entry.config[key] for key in columns if key in entry.config}
    config = json.dumps(values, ensure_ascii=False, allow_nan=False) if values else "{}"
    return f'{entry.text[:-1]},"config":{config}}}'


def read_cursors(values: object) -> dict[str, dict[str, list[int]]]:
    """Check the cursors of a page: for each chart and run the generation and the number of rows shown.

    Raises:
        ConfigError: They are malformed.
    """
    if not isinstance(values, Mapping) or len(values) > 100:
        raise ConfigError("cursors must be a JSON object of at most 100 charts.")
    for seen in values.values():
        if not isinstance(seen, Mapping):
            raise ConfigError("cursors must hold an object for each chart.")
        for cursor in seen.values():
            sound = isinstance(cursor, list) and len(cursor) == 2 and all(type(part) is int for part in cursor)
            if not sound or min(cursor) < 0:
                raise ConfigError("A cursor must be a list of two integers of at least 0.")
    return {str(title): {str(name): list(cursor) for name, cursor in seen.items()} for title, seen in values.items()}
