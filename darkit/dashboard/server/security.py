"""Access: checks every request first, and adds the headers that protect the page to every answer."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darkit.dashboard.server.access import Access

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_BODY = 2**20  # bytes
PATIENCE = 20.0  # seconds until a body is complete
COOKIE = "darkit_token"
AGENTS = "/api/v1"
_PAGES = ("/", "/compare")
_RUN_PAGE = "/run/"
_NO_PAGES = ("/api/", "/assets/", "/_", "/plotly-", "/scripts/")
_ELSEWHERE = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}  # noqa: S104
_PROTECTION = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",  # of browsers that do not know frame-ancestors
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def content_policy(script_hashes: Iterable[str], frames: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy: our own scripts and those with the given hashes, nothing from other origins.

    Styles may be inline, as the grid, the charts and the components set them so. Pages of our own origin may show ours
    as a part of theirs, as those of a notebook do through a proxy, and pages of ``frames``.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {' '.join(script_hashes)}".strip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            " ".join(("frame-ancestors 'self'", *frames)),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def own_hosts(host: str) -> frozenset[str]:
    """Return the host names that requests to a server bound to ``host`` may use."""
    names = {*LOOPBACK, host.lower()}
    if host not in LOOPBACK:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        if host in _ELSEWHERE:
            names |= _own_addresses()
    return frozenset(names)


def _own_addresses() -> set[str]:
    found = set()
    with suppress(OSError):  # a machine that cannot resolve its own name is reached by its other names
        found |= {str(entry[4][0]).lower() for entry in socket.getaddrinfo(socket.gethostname(), None)}
    return found | {address for host in _ELSEWHERE if (address := outgoing_address(host))}


def outgoing_address(host: str) -> str:
    """Return this machine's address for others, of the family of ``0.0.0.0`` or ``::``; empty without one."""
    family, elsewhere = _ELSEWHERE[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing; finds which address would be used
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0]).lower()
    except OSError:
        return ""


class Guard:
    """Refuse requests of foreign pages and other machines, and protect the answers.

    Args:
        app: Answers all other requests.
        hosts: The host names that requests may use.
        policy: The Content-Security-Policy.
        token: The token that a reader must present once, or None if only this machine can connect.
        access: Further names, and the path, by which a proxy reaches the server.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        policy: str,
        token: str | None = None,
        access: Access = Access(),  # noqa: B008 - it is frozen
    ) -> None:
        self._app = app
        self._hosts = hosts | frozenset(access.hosts)
        self._access = access
        self._policy = policy
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here uses one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        scope = self._access.below(scope, headers)
        refusal = self._refusal(scope, headers) or self._ask_for_token(scope, headers)
        protected = self._protecting(scope, send)
        body = None
        if scope["method"] == "POST" and (refusal is None or refusal.status_code != 413):
            try:  # of a refused request too: otherwise the connection is reset, and the sender gets no reason
                async with asyncio.timeout(PATIENCE):
                    body = await _whole_body(receive)
            except TimeoutError:
                refusal = _refuse(408, "The request timed out.")
        if refusal is not None:
            await refusal(scope, receive, protected)
            return
        if scope["method"] == "POST":
            if body is None:
                await _refuse(413, "The request is too large.")(scope, receive, protected)
                return
            value = _parsed(body)
            if not isinstance(value, dict):
                await _refuse(400, "The request is not a JSON object.")(scope, receive, protected)
                return
            scope, receive = {**scope, "darkit_body": value}, _replay(body, receive)
        elif is_page(scope["path"]) or _asks_for_page(scope, headers):
            asked = {"darkit_page": scope["path"], "darkit_raw_page": scope.get("raw_path") or scope["path"].encode()}
            scope = {**scope, "path": "/", "raw_path": b"/", **asked}
        await self._app(scope, receive, protected)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            return _refuse(400, "Unknown host name.")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _refuse(405, "Only GET and POST are supported.")
        if "upgrade" in headers:
            return _refuse(403, "Protocol upgrades are not supported.")
        origins = headers.getlist("origin")
        if any(not self._is_own(origin, hosts[0]) for origin in origins) or len(origins) > 1:
            return _refuse(403, "Requests of other sites are refused.")
        site = headers.get("sec-fetch-site", "same-origin")
        shown_in = ("document", "iframe") if self._access.frames else ("document",)
        if site not in ("same-origin", "none") and not _is_navigation(scope, headers, shown_in):
            return _refuse(403, "Requests of other sites are refused.")
        if scope["method"] == "POST":
            if not origins:
                return _refuse(403, "A POST request must have an Origin header.")
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return _refuse(415, "Only JSON is supported.")
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > LONGEST_BODY:
                return _refuse(413, "The request is too large.")
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether a page that asks is ours: a proxy may send another Host than the browser's."""
        found = origin_host(origin)
        return found == host.lower() or host_name(found) in self._access.hosts

    def _ask_for_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None or scope["path"] == "/api/shutdown":  # has its own key
            return None
        if same_secret(_cookie(headers), self._token):
            return None
        if scope["path"].startswith(AGENTS) and same_secret(_bearer(headers), self._token):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [""])[0]
        if scope["method"] == "GET" and is_page(scope["path"]) and same_secret(given, self._token):
            rest = urlencode(query, doseq=True)
            # relative, as a proxy may have more of the path before it
            here = "./" + (scope.get("raw_path") or b"/").decode("latin-1").rpartition("/")[2]
            answer = RedirectResponse(here + (f"?{rest}" if rest else ""), 303)
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
    """Return whether a path is a page that a person opens."""
    return path in _PAGES or (path.startswith(_RUN_PAGE) and path.count("/", len(_RUN_PAGE)) <= 1)  # label/name


def _asks_for_page(scope: Scope, headers: Headers) -> bool:
    """Return whether a person opens an address that is none of ours, for which there is a page that says so."""
    path = scope["path"]
    return "text/html" in headers.get("accept", "") and not path.startswith(_NO_PAGES)


def host_name(host: str) -> str:
    """Return the name in a Host header without its port, in lower case; empty if malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def origin_host(origin: str) -> str:
    """Return the host and port of an Origin, in lower case; empty if malformed."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.lower() if parts.scheme in ("http", "https") and not parts.path else ""


def _is_navigation(scope: Scope, headers: Headers, shown_in: Sequence[str]) -> bool:
    """Return whether a person follows a link from another site, or a page there shows ours, which holds no data."""
    return (
        scope["method"] == "GET"
        and is_page(scope["path"])
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") in shown_in
    )


def _cookie_name(headers: Headers) -> str:
    """Return the name of the cookie: a browser sends the cookies of a host to all its ports, each maybe a server."""
    try:
        port = urlsplit(f"//{headers['host']}").port
    except ValueError:
        port = None
    return f"{COOKIE}_{port or 80}"


def _cookie(headers: Headers) -> str:
    return cookie_parser(headers.get("cookie", "")).get(_cookie_name(headers), "")


def _bearer(headers: Headers) -> str:
    """Return the token that a program sends; no page of another site can, as browsers ask for leave first."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def same_secret(given: str, secret: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _refuse(code: int, sentence: str) -> Response:
    return PlainTextResponse(sentence, code, {"connection": "close"} if code in (408, 413) else None)


async def _whole_body(receive: Receive) -> bytes | None:
    """Return the body, or None if it is too large or the client disconnected."""
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
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
