"""Answers in fewer bytes for readers elsewhere; on one machine, bytes take no time and compressing does.

A proxy or a tunnel on this machine stands for a reader elsewhere: a request through it has a header of the proxy, or
names another host than this one. Of a tunnel that is asked for as ``localhost`` nothing shows.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkit.dashboard.server.access import is_loopback
from darkit.dashboard.server.security import host_name

LEAST = 1_000  # bytes; fewer are sent as they are
_LEVEL = 6
_STREAMED = ("/api/predict", "/api/csv", "/api/bundle")  # sent while they are made, or too long for the memory
_SCRIPTS = ("/_dash-component-suites/", "/assets/", "/plotly-", "/scripts/")  # the same at every visit
_KEPT = 64 * 2**20  # bytes of compressed scripts
_KINDS = ("text/", "application/json", "application/javascript", "image/svg+xml")


def _is_near(scope: Scope) -> bool:
    """Return whether the reader is on this machine: it is itself the client, and asks by a name of this machine."""
    client, headers = scope.get("client"), Headers(scope=scope)
    if client is None:
        return True
    host = host_name(headers.get("host", "")) or "localhost"
    forwarded = any(name == "forwarded" or name.startswith("x-forwarded-") for name in headers)
    return is_loopback(client[0]) and not forwarded and (host == "localhost" or is_loopback(host))


class Compressed:
    """Compress answers that a client elsewhere accepts so; those of scripts are kept.

    Args:
        app: Gives the answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._size = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] in _STREAMED
            or "gzip" not in Headers(scope=scope).get("accept-encoding", "")
            or _is_near(scope)
        ):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._send(scope["path"], start, b"".join(parts), send)

        await self._app(scope, receive, collect)

    async def _send(self, path: str, start: Message, body: bytes, send: Send) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        kind = headers.get("content-type", "")
        if (
            start["status"] == 200
            and len(body) >= LEAST
            and kind.startswith(_KINDS)
            and "content-encoding" not in headers
        ):
            body = await self._compress(path, body)
            headers["content-encoding"] = "gzip"
            headers["content-length"] = str(len(body))
            headers.add_vary_header("Accept-Encoding")
        await send({**start, "headers": headers.raw})
        await send({"type": "http.response.body", "body": body})

    async def _compress(self, path: str, body: bytes) -> bytes:
        if not path.startswith(_SCRIPTS):
            return await run_in_threadpool(gzip.compress, body, _LEVEL, mtime=0)
        key = (path, hashlib.sha256(body).digest())
        if key not in self._kept:
            found = await run_in_threadpool(gzip.compress, body, _LEVEL, mtime=0)
            self._kept[key] = found
            self._size += len(found)
            while self._size > _KEPT:
                self._size -= len(self._kept.popitem(last=False)[1])
        return self._kept[key]
