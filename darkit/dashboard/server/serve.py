"""Serve the dashboard of a home: at most one server for each, found by a file in the home."""

from __future__ import annotations

import gc
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from darkit.dashboard.server.place import FOLDER, WEBHOOKS, Place, ServerLock, folder_of, running
from darkit.errors import DarkitError, ServerError
from darkit.runs.child import environment, python_module

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from darkit.dashboard.server.access import Access
    from darkit.dashboard.server.webhooks import Notifier
    from darkit.remote.homes import Homes

_PATIENCE = 20.0  # seconds until a server answers or ends
_LONGEST_HEAD = 2**18  # bytes of a request before its body: an address can name 200 runs
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    home: Path,
    host: str,
    port: int,
    announce: Callable[[str], None],
    others: Sequence[str] = (),
    hosts: Sequence[str] = (),
    base_path: str = "",
    frames: Sequence[str] = (),
) -> int:
    """Serve the dashboard of a home until it is stopped.

    Args:
        home: The darkit home; it need not exist yet.
        host: The address to bind to. Any but this machine's own needs a token, which is made here.
        port: The port; 0 takes a free one.
        announce: Called with the address, including the token, as soon as it can be opened.
        others: Addresses of homes that are shown too and only read, see `darkit.remote.address`.
        hosts: Further host names by which a proxy reaches the server.
        base_path: The path below which a proxy asks for its pages, if it does not take the path away.
        frames: Origins whose pages may show its own as a part of theirs.

    Returns:
        The exit code.

    Raises:
        ServerError: The port is taken, the host is not an address of this machine, or a server of this home runs and
            shows other homes or is reached otherwise.
        ConfigError: The address of another home, a host name, the path or ``webhooks.json`` is wrong.
    """
    access = make_access(hosts, base_path, frames)
    homes = _homes(others)
    _notifier(home, "")
    lock = ServerLock(home)
    if not lock.acquire():
        announce(running(home, others, access).link)
        return 0
    with lock:
        listening = _listen(host, port)
        shown = _name_for_others(host)
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        token = None if host in _LOOPBACK else secrets.token_urlsafe(32)
        key = secrets.token_urlsafe(32)
        place = Place(address, key, token or "", tuple(others), access.hosts, access.base_path, access.frames)
        lock.publish(place)
        announce(place.link)
        return _run(home, host, listening, token, key, homes, access, _notifier(home, "" if token is None else address))


def start_in_background(
    home: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    others: Sequence[str] = (),
    hosts: Sequence[str] = (),
    base_path: str = "",
    frames: Sequence[str] = (),
) -> str:
    """Start a server in the background, unless the home has one, and return its address once it answers.

    Raises:
        ServerError: It did not start; the message says why.
        ConfigError: The address of another home, a host name, the path or ``webhooks.json`` is wrong.
    """
    access = make_access(hosts, base_path, frames)
    _homes(others)
    _notifier(home, "")
    if not ServerLock(home).free():
        return running(home, others, access).link
    reached = json.dumps(asdict(access))
    command = python_module("darkit.dashboard.server.serve", str(home), host, str(port), reached, *others)
    folder = folder_of(home)
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
    threading.Thread(target=process.wait, daemon=True).start()  # so that its end leaves nothing in a long process
    _wait_for(address)
    return address


def stop(home: Path) -> str | None:
    """Stop the server of a home and return its address, or None if none is running.

    Raises:
        ServerError: It does not stop.
    """
    if not (home / FOLDER).is_dir():
        return None
    lock = ServerLock(home)
    if lock.free():
        return None
    place = running(home)
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


def make_access(hosts: Sequence[str], base_path: str, frames: Sequence[str]) -> Access:
    """Check by which names and path a proxy reaches the server. Raises `ConfigError`."""
    from darkit.dashboard.server.access import make_access  # late, as all that imports the web server

    return make_access(hosts, base_path, frames)


def _homes(others: Sequence[str]) -> Homes | None:
    """Return the other homes; without any, nothing of what reads them is imported. Raises `ConfigError`."""
    if not others:
        return None
    from darkit.remote.homes import Homes

    return Homes(others)


def _notifier(home: Path, address: str) -> Notifier | None:
    """Return what sends messages to the webhooks of a home; without any, nothing of it is imported.

    Args:
        home: The home.
        address: The address of its pages, for links in the messages; empty if others cannot open it.

    Raises:
        ConfigError: ``webhooks.json`` is wrong.
    """
    if not os.path.lexists(home / WEBHOOKS):
        return None
    from darkit.dashboard.server.webhooks import Notifier, read_webhooks

    def link(run: str) -> str:
        return f"{address}run/{quote(run)}" if address else ""

    return Notifier(read_webhooks(home), link)


def _run(
    home: Path,
    host: str,
    listening: socket.socket,
    token: str | None,
    key: str,
    homes: Homes | None,
    access: Access,
    notifier: Notifier | None,
) -> int:
    gc.disable()  # until `build` has made its many objects, all of which stay
    from darkit.dashboard.server.lean import import_dash

    import_dash()
    from darkit.dashboard.server.app import create_app
    from darkit.dashboard.server.connections import keep_log_short
    from darkit.dashboard.server.security import own_hosts, same_secret

    def end(given: str) -> bool:
        if same_secret(given, key):
            server.should_exit = True
            return True
        return False

    keep_log_short()
    app = create_app(
        home / "base", homes=homes, hosts=own_hosts(host), access=access, token=token, stop=end, notifier=notifier
    )
    server = server_of(app)
    if homes is not None:
        homes.start()
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        if notifier is not None:
            notifier.close()
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


def _main(home: str, host: str, port: str, reached: str = "{}", *others: str) -> int:
    def announce(address: str) -> None:
        print(address, flush=True)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)

    try:
        return serve(Path(home), host, int(port), announce, others, **json.loads(reached))
    except DarkitError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
