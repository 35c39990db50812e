"""Answers to other machines are compressed, those on this one are not; a stream stays a stream."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from darkit.dashboard.server import compression
from darkit.dashboard.server.compression import Compressed
from tests.dashboard.parts import finish

BODY = "words " * 1000


def ask(
    app: Any,
    path: str = "/",
    client: str = "10.0.0.7",
    accept: str = "gzip, br",
    more: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[dict[str, str], list[bytes]]:
    """Return the headers and the pieces of an answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    async def receive() -> Message:
        await asyncio.sleep(60)  # the client stays
        return {"type": "http.disconnect"}

    headers = [*([(b"accept-encoding", accept.encode())] if accept else []), *more]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (client, 5)}
    finish(app(scope, receive, send))
    start, *pieces = sent
    return {name.decode(): value.decode() for name, value in start["headers"]}, [one.get("body", b"") for one in pieces]


@pytest.mark.parametrize(
    "answer", [PlainTextResponse(BODY), JSONResponse([BODY]), Response(BODY, media_type="text/css")]
)
def test_an_answer_to_another_machine_is_compressed_and_the_same(answer: Response) -> None:
    headers, pieces = ask(Compressed(answer))
    assert headers["content-encoding"] == "gzip"
    assert headers["content-length"] == str(len(pieces[0]))
    assert headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(pieces[0]) == bytes(answer.body)
    assert len(pieces[0]) < 200


@pytest.mark.parametrize(
    "header",
    [(b"x-forwarded-for", b"10.0.0.7"), (b"forwarded", b"for=10.0.0.7"), (b"host", b"hub.example.org:8000")],
)
def test_an_answer_through_a_proxy_on_this_machine_is_compressed(header: tuple[bytes, bytes]) -> None:
    headers, _ = ask(Compressed(PlainTextResponse(BODY)), client="127.0.0.1", more=[header])
    assert headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (PlainTextResponse(BODY), {"client": "127.0.0.1"}),
        (PlainTextResponse(BODY), {"client": "::1"}),
        (PlainTextResponse(BODY), {"client": "127.0.0.1", "more": [(b"host", b"localhost:8000")]}),
        (PlainTextResponse(BODY), {"client": "::1", "more": [(b"host", b"[::1]:8000")]}),
        (PlainTextResponse(BODY), {"accept": ""}),
        (PlainTextResponse("short"), {}),
        (Response(BODY, media_type="image/png"), {}),
        (Response(BODY, media_type="text/plain", headers={"content-encoding": "br"}), {}),
        (Response(BODY, 206, media_type="text/plain"), {}),
    ],
)
def test_what_needs_no_compression_is_sent_as_it_is(answer: Response, options: dict[str, Any]) -> None:
    headers, pieces = ask(Compressed(answer), **options)
    assert headers.get("content-encoding") != "gzip"
    assert b"".join(pieces) == bytes(answer.body)


@pytest.mark.parametrize("path", ["/api/predict", "/api/bundle"])
def test_an_answer_to_a_prompt_and_an_archive_come_piece_by_piece(path: str) -> None:
    async def words() -> Any:
        for word in ("one", "two"):
            yield word * 1000

    headers, pieces = ask(Compressed(StreamingResponse(words(), media_type="text/plain")), path)
    assert "content-encoding" not in headers
    assert pieces[:2] == [b"one" * 1000, b"two" * 1000]


def test_a_script_is_compressed_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = []

    def count(body: bytes, level: int, *, mtime: int) -> bytes:
        compressed.append(body[:3])
        return real(body, level, mtime=mtime)

    real = gzip.compress
    monkeypatch.setattr(gzip, "compress", count)
    monkeypatch.setattr(compression, "_KEPT", 100)

    async def scripts(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["path"][-1] * 3000)(scope, receive, send)

    app = Compressed(scripts)
    for name in "aabba":
        _, pieces = ask(app, f"/assets/{name}")
        assert gzip.decompress(pieces[0]) == name.encode() * 3000
    assert compressed == [b"aaa", b"bbb"]
    for name in "cdefga":
        ask(app, f"/assets/{name}")
    assert compressed.count(b"aaa") == 2, "it was dropped meanwhile"
