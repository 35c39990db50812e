"""Connections of the dashboard's server: only so many, none that waits for ever, and a log that stays short.

uvicorn waits for the head of a request without end, and asyncio answers a process that has no file descriptor left with
thousands of tracebacks a second. So a server here takes fewer connections than it has descriptors. One more ends the
connection that has waited longest without a request.
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

PATIENCE = 20.0  # seconds for the head of a request to come, and for the end of an answer to be taken
STALLED = 60.0  # seconds in which a reader must take something of a long answer
MOST_CONNECTIONS = 512
ACCEPTED_AT_ONCE = 16  # connections taken in one turn of the loop; a few turns pass before one more is ended
_QUEUE = 128  # connections that the system keeps until they are taken
_OTHER_FILES = 64  # descriptors for logs of runs, models that answer, and what is imported later
_FEWEST = 8
_MOST_LINES = 10  # of the log, in a minute
_MINUTE = 60.0  # seconds


def most_connections() -> int:
    """Returns how many connections this process has file descriptors for, beside what else it opens."""
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
    """The connections of a server that have no request under way, the one that has waited longest first.

    Args:
        most: How many connections there may be, with those that have one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting: dict[BoundedProtocol, None] = {}

    def add(self, connection: BoundedProtocol) -> None:
        """Puts a connection at the end."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def remove(self, connection: BoundedProtocol) -> None:
        """Takes a connection out."""
        self._waiting.pop(connection, None)

    def make_room(self, connections: int) -> None:
        """Ends the connection that has waited longest if there are too many."""
        if connections > self.most and self._waiting:
            oldest = next(iter(self._waiting))
            self.remove(oldest)
            oldest.transport.abort()


class BoundedProtocol(H11Protocol):
    """uvicorn's connection, which ends when it has waited too long for a request or for its reader."""

    waiting: Waiting  # of the server; a subclass of its own for each

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._unread = 0
        self._wait()
        self.waiting.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._busy()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes part of a request; the wait is over when its head is whole."""
        super().data_received(data)
        if self._has_request():
            self._busy()

    def on_response_complete(self) -> None:
        """Waits for the next request, unless it has come already."""
        super().on_response_complete()
        if not self._has_request():
            self._wait()

    def pause_writing(self) -> None:
        """Gives the reader a while to take something of the answer."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader has taken something."""
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
        if 0 < self.transport.get_write_buffer_size() < self._unread:  # a slow reader of the last answer
            self._wait()
        else:
            self.waiting.remove(self)
            self.transport.abort()


def bounded_protocol() -> type[BoundedProtocol]:
    """Makes the protocol of one server."""
    return type("BoundedProtocol", (BoundedProtocol,), {"waiting": Waiting(most_connections())})


class Server(uvicorn.Server):
    """uvicorn's server, which lets the system queue more connections than it takes in one turn."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to serve."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_QUEUE)


class FewLines(logging.Filter):
    """Lets a few records a minute through, and then says how many it left out."""

    def __init__(self) -> None:
        super().__init__()
        self._since = -_MINUTE
        self._let = self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Says whether a record is written."""
        now = time.monotonic()
        if now - self._since >= _MINUTE:
            self._since, self._let = now, 0
        if self._let >= _MOST_LINES:
            self._left_out += 1
            return False
        self._let += 1
        if self._left_out:
            record.msg = f"[{self._left_out} more were left out before] {record.msg}"
            self._left_out = 0
        return True


def keep_log_short() -> None:
    """Lets this process write errors to standard error, a few a minute."""
    handler: logging.Handler = logging.StreamHandler()
    handler.addFilter(FewLines())
    logging.basicConfig(level=logging.ERROR, handlers=[handler])


def server_options() -> dict[str, Any]:
    """Returns the part of uvicorn's configuration that bounds connections and leaves the log to its process."""
    return {"http": bounded_protocol(), "backlog": ACCEPTED_AT_ONCE, "timeout_keep_alive": 5, "log_config": None}
