"""Who may ask what: every request passes here first, and every answer leaves with the headers that protect the page."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_BODY = 2**20  # bytes
PATIENCE = 20.0  # seconds for a body to come
COOKIE = "darkit_token"
_PAGES = ("/", "/compare")
_RUN_PAGE = "/run/"
_ELSEWHERE = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}  # noqa: S104
_PROTECTION = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def content_policy(script_hashes: Iterable[str]) -> str:
    """The Content-Security-Policy: scripts of our own and those whose hash is given, nothing from elsewhere.

    Styles may stand inline, as the grid, the charts and the components set them so.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {' '.join(script_hashes)}".strip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def own_hosts(host: str) -> frozenset[str]:
    """The names under which a server bound to ``host`` may be asked."""
    names = {*LOOPBACK, host.lower()}
    if host not in LOOPBACK:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        if host in _ELSEWHERE:
            names |= _own_addresses()
    return frozenset(names)


def _own_addresses() -> set[str]:
    found = set()
    with suppress(OSError):  # a machine that cannot look itself up is asked by the names it has
        found |= {str(entry[4][0]).lower() for entry in socket.getaddrinfo(socket.gethostname(), None)}
    return found | {address for host in _ELSEWHERE if (address := outgoing_address(host))}


def outgoing_address(host: str) -> str:
    """This machine's address for others, of the kind that ``0.0.0.0`` or ``::`` stands for; empty without one."""
    family, elsewhere = _ELSEWHERE[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing; asks which address would be used
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0]).lower()
    except OSError:
        return ""


class Guard:
    """Refuses what a foreign page or another machine may not ask, and protects the answers.

    Args:
        app: What answers the rest.
        hosts: The host names under which the server may be asked.
        policy: The Content-Security-Policy.
        token: What a reader must show once, or None for a server that only this machine can reach.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], policy: str, token: str | None = None) -> None:
        self._app = app
        self._hosts = hosts
        self._policy = policy
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "websocket":  # nothing here speaks over one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers) or self._ask_for_token(scope, headers)
        protected = self._protecting(scope, send)
        body = None
        if scope["method"] == "POST" and (refusal is None or refusal.status_code != 413):
            try:  # also of who is refused: else the connection is reset, and the sender does not hear why
                async with asyncio.timeout(PATIENCE):
                    body = await _whole_body(receive)
            except TimeoutError:
                refusal = _refuse(408, "The request takes too long.")
        if refusal is not None:
            await refusal(scope, receive, protected)
            return
        if scope["method"] == "POST":
            if body is None:
                await _refuse(413, "The request is too long.")(scope, receive, protected)
                return
            value = _parsed(body)
            if not isinstance(value, dict):
                await _refuse(400, "The request is not a JSON object.")(scope, receive, protected)
                return
            scope, receive = {**scope, "darkit_body": value}, _replay(body, receive)
        elif is_page(scope["path"]):
            scope = {**scope, "path": "/", "raw_path": b"/", "darkit_page": scope["path"]}
        await self._app(scope, receive, protected)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            return _refuse(400, "This server is not known by that name.")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _refuse(405, "Only GET and POST are understood.")
        if "upgrade" in headers:
            return _refuse(403, "Nothing here speaks another protocol.")
        origins = headers.getlist("origin")
        if any(urlsplit_safely(origin) != hosts[0].lower() for origin in origins) or len(origins) > 1:
            return _refuse(403, "A page from elsewhere may not ask this.")
        site = headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none") and not _is_navigation(scope, headers):
            return _refuse(403, "A page from elsewhere may not ask this.")
        if scope["method"] == "POST":
            if not origins:
                return _refuse(403, "A request that changes something must say where it comes from.")
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return _refuse(415, "Only JSON is understood.")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > LONGEST_BODY:
                return _refuse(413, "The request is too long.")
        return None

    def _ask_for_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None or scope["path"] == "/api/shutdown":  # which has a key of its own
            return None
        if same_secret(_cookie(headers), self._token):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [""])[0]
        if scope["method"] == "GET" and is_page(scope["path"]) and same_secret(given, self._token):
            rest = urlencode(query, doseq=True)
            answer = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(_cookie_name(headers), self._token, httponly=True, samesite="strict", max_age=30 * 86400)
            return answer
        return _refuse(401, "Open the address with the token that `darkit start` printed.")

    def _protecting(self, scope: Scope, send: Send) -> Send:
        fixed = [(name.encode(), value.encode()) for name, value in _PROTECTION.items()]
        fixed.append((b"content-security-policy", self._policy.encode()))

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                extra = list(fixed)
                if b"cache-control" not in names:
                    static = scope["path"].startswith("/assets/")
                    extra.append((b"cache-control", b"no-cache" if static else b"no-store"))
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        return protected


def is_page(path: str) -> bool:
    """Says whether a path is one of the pages that a person opens."""
    return path in _PAGES or (path.startswith(_RUN_PAGE) and "/" not in path[len(_RUN_PAGE) :])


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in small letters; empty when it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def urlsplit_safely(origin: str) -> str:
    """What an Origin must equal to be our own: its host and port, in small letters; empty when it is none."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.lower() if parts.scheme in ("http", "https") and not parts.path else ""


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """A person who follows a link from elsewhere; the page itself holds nothing of a run."""
    return (
        scope["method"] == "GET"
        and is_page(scope["path"])
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _cookie_name(headers: Headers) -> str:
    """The cookie's name: a browser gives the cookies of a host to all of its ports, and each may have a server."""
    try:
        port = urlsplit(f"//{headers['host']}").port
    except ValueError:
        port = None
    return f"{COOKIE}_{port or 80}"


def _cookie(headers: Headers) -> str:
    return cookie_parser(headers.get("cookie", "")).get(_cookie_name(headers), "")


def same_secret(given: str, secret: str) -> bool:
    """Compares two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _refuse(code: int, sentence: str) -> Response:
    return PlainTextResponse(sentence, code, {"connection": "close"} if code in (408, 413) else None)


async def _whole_body(receive: Receive) -> bytes | None:
    """The whole body, or None when it is longer than it may be or its sender went away."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LONGEST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
