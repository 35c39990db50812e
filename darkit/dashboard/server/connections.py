"""Limits of the dashboard's server: the number of connections, how long each may idle, and the length of the log.

uvicorn waits for the head of a request without a limit, and asyncio logs thousands of tracebacks a second in a process
without free file descriptors. So a server accepts fewer connections than it has descriptors, and one more closes the
connection that has been idle longest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 20.0  # seconds until the head of a request is complete, and until the end of an answer is read
STALLED = 60.0  # seconds within which a client must read some of a long answer
MOST_CONNECTIONS = 512
ACCEPTED_AT_ONCE = 16  # connections accepted in one turn of the loop; a few turns pass before one more is closed
_QUEUE = 128  # connections that the system holds until they are accepted
_OTHER_FILES = 64  # descriptors for logs, prompts and later imports
_FEWEST = 8
_MOST_LINES = 10  # of the log, per minute
_MINUTE = 60.0  # seconds


def most_connections() -> int:
    """Return how many connections this process has file descriptors for, besides its other files."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    left = limit - len(os.listdir("/dev/fd")) - _OTHER_FILES - 4 * ACCEPTED_AT_ONCE  # noqa: PTH208 - names only
    return max(_FEWEST, min(MOST_CONNECTIONS, left))


class Waiting:
    """The idle connections of a server, the longest idle first.

    Args:
        most: The limit of all connections, idle or not.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting: dict[BoundedProtocol, None] = {}

    def add(self, connection: BoundedProtocol) -> None:
        """Add a connection at the end."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def remove(self, connection: BoundedProtocol) -> None:
        self._waiting.pop(connection, None)

    def make_room(self, connections: int) -> None:
        """Close the longest idle connection if there are too many."""
        if connections > self.most and self._waiting:
            oldest = next(iter(self._waiting))
            self.remove(oldest)
            oldest.transport.abort()


class BoundedProtocol(H11Protocol):
    """uvicorn's connection with time limits for the client's requests and reading."""

    waiting: Waiting  # of the server; each has its own subclass

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._unread = 0
        self._wait()
        self.waiting.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._busy()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called with part of a request; the connection is busy once the head is complete."""
        super().data_received(data)
        if self._has_request():
            self._busy()

    def on_response_complete(self) -> None:
        """Called after an answer; the connection is idle unless the next request has arrived."""
        super().on_response_complete()
        if not self._has_request():
            self._wait()

    def pause_writing(self) -> None:
        """Called when the client reads too slowly; starts its time limit."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """Called when the client has read some of the answer."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._busy()
        self.waiting.add(self)
        self._unread = self.transport.get_write_buffer_size()
        self._deadline = self.loop.call_later(PATIENCE, self._expire)

    def _busy(self) -> None:
        self.waiting.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        if 0 < self.transport.get_write_buffer_size() < self._unread:  # a slow client reads the last answer
            self._wait()
        else:
            self.waiting.remove(self)
            self.transport.abort()


def bounded_protocol() -> type[BoundedProtocol]:
    """Make the protocol class of one server."""
    return type("BoundedProtocol", (BoundedProtocol,), {"waiting": Waiting(most_connections())})


class Server(uvicorn.Server):
    """uvicorn's server with a longer queue in the system than it accepts in one turn."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_QUEUE)


class FewLines(logging.Filter):
    """Pass a few records a minute, and count the dropped ones."""

    def __init__(self) -> None:
        super().__init__()
        self._since = -_MINUTE
        self._let = self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._since >= _MINUTE:
            self._since, self._let = now, 0
        if self._let >= _MOST_LINES:
            self._left_out += 1
            return False
        self._let += 1
        if self._left_out:
            record.msg = f"[{self._left_out} errors were not logged before this one] {record.msg}"
            self._left_out = 0
        return True


def keep_log_short() -> None:
    """Log errors of this process to standard error, a few a minute."""
    handler: logging.Handler = logging.StreamHandler()
    handler.addFilter(FewLines())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])


def server_options() -> dict[str, Any]:
    """Return the options of uvicorn that limit connections and leave logging to this process."""
    return {"http": bounded_protocol(), "backlog": ACCEPTED_AT_ONCE, "timeout_keep_alive": 5, "log_config": None}
