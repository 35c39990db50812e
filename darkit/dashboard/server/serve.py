"""Serve the dashboard of a home: at most one server for each, found by a file in the home."""

from __future__ import annotations

import gc
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import lock_descriptor

from darkit.errors import DarkitError, ServerError, listing
from darkit.runs import files
from darkit.runs.child import environment, python_module
from darkit.runs.safe import UnreadableError, read_object

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from darkit.remote.homes import Homes

FOLDER = ".dashboard"
_PATIENCE = 20.0  # seconds until a server answers or ends
_LONGEST_HEAD = 2**18  # bytes of a request before its body: an address can name 200 runs
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Place:
    """Where the dashboard of a home is served.

    Attributes:
        address: The address to open in a browser, without the token.
        key: Ends the server; known to everyone who can read the home.
        token: The token that a reader must present once; empty if only this machine can connect.
        others: The addresses of the other homes that it shows.
    """

    address: str
    key: str
    token: str = ""
    others: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        """The address to open in a browser, with the token if one is needed."""
        return f"{self.address}?token={self.token}" if self.token else self.address


def serve(home: Path, host: str, port: int, announce: Callable[[str], None], others: Sequence[str] = ()) -> int:
    """Serve the dashboard of a home until it is stopped.

    Args:
        home: The darkit home; it need not exist yet.
        host: The address to bind to. Any but this machine's own needs a token, which is made here.
        port: The port; 0 takes a free one.
        announce: Called with the address, including the token, as soon as it can be opened.
        others: Addresses of homes that are shown too and only read, see `darkit.remote.address`.

    Returns:
        The exit code.

    Raises:
        ServerError: The port is taken, the host is not an address of this machine, or a server of this home runs and
            shows other homes.
        ConfigError: The address of another home is wrong.
    """
    homes = _homes(others)
    lock = _ServerLock(home)
    if not lock.acquire():
        announce(_running(home, others).link)
        return 0
    with lock:
        listening = _listen(host, port)
        shown = _name_for_others(host)
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        token = None if host in _LOOPBACK else secrets.token_urlsafe(32)
        key = secrets.token_urlsafe(32)
        place = Place(address, key, token or "", tuple(others))
        lock.publish(place)
        announce(place.link)
        return _run(home, host, listening, token, key, homes)


def start_in_background(home: Path, host: str = "127.0.0.1", port: int = 8000, others: Sequence[str] = ()) -> str:
    """Start a server in the background, unless the home has one, and return its address once it answers.

    Raises:
        ServerError: It did not start; the message says why.
        ConfigError: The address of another home is wrong.
    """
    _homes(others)
    if not _ServerLock(home).free():
        return _running(home, others).link
    command = python_module("darkit.dashboard.server.serve", str(home), host, str(port), *others)
    folder = _folder(home)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=environment({"DARWIN_KIT_HOME": str(home)}),
        )
    assert process.stdout is not None  # noqa: S101 - it is a pipe by the call above
    with process.stdout:
        address = process.stdout.readline().decode().strip()
    if not address:
        log_lines = (folder / "server.log").read_text(errors="replace").strip().splitlines()
        raise ServerError(log_lines[-1] if log_lines else "The dashboard did not start.")
    _wait_for(address)
    return address


def stop(home: Path) -> str | None:
    """Stop the server of a home and return its address, or None if none is running.

    Raises:
        ServerError: It does not stop.
    """
    if not (home / FOLDER).is_dir():
        return None
    lock = _ServerLock(home)
    if lock.free():
        return None
    place = _running(home)
    body = json.dumps({"key": place.key}).encode()
    origin = place.address.rstrip("/")
    headers = {"content-type": "application/json", "origin": origin}
    request = urllib.request.Request(f"{origin}/api/shutdown", body, headers)  # noqa: S310 - http, our own
    with suppress(OSError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).close()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if lock.free():
            return place.address
        time.sleep(0.05)
    raise ServerError(f"The dashboard at {place.address} does not stop.")


def _homes(others: Sequence[str]) -> Homes | None:
    """Return the other homes; without any, nothing of what reads them is imported. Raises `ConfigError`."""
    if not others:
        return None
    from darkit.remote.homes import Homes

    return Homes(others)


def _run(home: Path, host: str, listening: socket.socket, token: str | None, key: str, homes: Homes | None) -> int:
    gc.disable()  # until `build` has made its many objects, all of which stay
    from darkit.dashboard.server.app import create_app
    from darkit.dashboard.server.connections import keep_log_short
    from darkit.dashboard.server.security import own_hosts, same_secret

    def end(given: str) -> bool:
        if same_secret(given, key):
            server.should_exit = True
            return True
        return False

    keep_log_short()
    app = create_app(home / "base", homes=homes, hosts=own_hosts(host), token=token, stop=end)
    server = server_of(app)
    if homes is not None:
        homes.start()
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        if homes is not None:
            homes.close()
    return 0


def server_of(app: ASGIApp) -> uvicorn.Server:
    """Make a server that no environment variable changes."""
    import uvicorn  # late: the address is announced before the slow imports

    from darkit.dashboard.server.connections import Server, server_options

    config = uvicorn.Config(
        app,
        port=0,
        lifespan="off",
        ws="none",
        loop="asyncio",
        interface="asgi3",
        h11_max_incomplete_event_size=_LONGEST_HEAD,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        workers=1,
        **server_options(),
    )
    return Server(config)


def _name_for_others(host: str) -> str:
    """Return the host of the announced address: if bound to all addresses, one that others can reach."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        from darkit.dashboard.server.security import outgoing_address

        host = outgoing_address(host) or {"0.0.0.0": "127.0.0.1"}.get(host, "::1")  # noqa: S104
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServerError(f"{host!r} is not an address of this machine: {error.strerror}.") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(where)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno in (13, 98, 48):  # EACCES, EADDRINUSE on Linux and on macOS
            raise ServerError(f"Port {port} on {host} is taken or forbidden. Choose another with --port.") from error
        raise ServerError(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
    return listening


class _ServerLock:
    """The right to serve a home: a lock that is released however the server ends."""

    def __init__(self, home: Path) -> None:
        self._path = _folder(home) / "lock"
        self._place = _folder(home) / "place.json"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Acquire the lock if it is free, and return whether this process has it."""
        if self._descriptor is None:
            with _writing_to(self._path.parent.parent), ExitStack() as undo:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, descriptor)
                if not lock_descriptor(descriptor, blocking=False):
                    return False
                undo.pop_all()
            self._descriptor = descriptor
        return True

    def free(self) -> bool:
        """Return whether no server of the home is running."""
        if not self.acquire():
            return False
        self._release()
        return True

    def publish(self, place: Place) -> None:
        """Write where the home is served, readable only by its owner."""
        old = os.umask(0o077)
        try:
            files.write_json(self._place, asdict(place))
        finally:
            os.umask(old)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> _ServerLock:
        self._place.unlink(missing_ok=True)  # left by a server that was killed
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            self._place.unlink()
        self._release()


def _folder(home: Path) -> Path:
    folder = home / FOLDER
    with _writing_to(home):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _writing_to(home: Path) -> AbstractContextManager[None]:
    return files.storage_errors(f"write the dashboard's lock and address into the darkit home {home}")


def _running(home: Path, others: Sequence[str] = ()) -> Place:
    """Return the server that runs; raise `ServerError` where homes are asked for that it does not show."""
    place = _published(home)
    if not set(others) <= set(place.others):
        shown = listing(list(place.others)) or "no other home"
        raise ServerError(
            f"A dashboard of {home} is running at {place.address} and shows {shown}. End it with `darkit stop-server`."
        )
    return place


def _published(home: Path) -> Place:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            values = read_object(home / FOLDER / "place.json")
            others = values.get("others")
            shown = tuple(map(str, others)) if isinstance(others, list) else ()
            return Place(str(values["address"]), str(values["key"]), str(values.get("token", "")), shown)
        except PermissionError as error:
            raise ServerError(f"Another user runs a dashboard of {home}.") from error
        except (OSError, UnreadableError, KeyError) as error:
            if time.monotonic() > deadline:
                raise ServerError(f"A dashboard of {home} is running, but its address was not written.") from error
        time.sleep(0.05)  # it has started, but not published its address yet


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            opener.open(address.partition("?")[0], timeout=5).close()
            return
        except urllib.error.HTTPError:  # it asks for its token, so it is running
            return
        except OSError:
            time.sleep(0.05)
    raise ServerError(f"The dashboard at {address} does not answer.")


def _main(home: str, host: str, port: str, *others: str) -> int:
    def announce(address: str) -> None:
        print(address, flush=True)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)

    try:
        return serve(Path(home), host, int(port), announce, others)
    except DarkitError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
