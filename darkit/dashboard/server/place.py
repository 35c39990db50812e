"""Where the dashboard of a home is served: the lock of its server, and the file that says how to reach it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import lock_descriptor

from darkit.errors import ServerError, listing
from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_object

if TYPE_CHECKING:
    from darkit.dashboard.server.access import Access

FOLDER = ".dashboard"
WEBHOOKS = "webhooks.json"
_PATIENCE = 20.0  # seconds until the address of a server that has started is written


@dataclass(frozen=True)
class Place:
    """Where the dashboard of a home is served.

    Attributes:
        address: The address to open in a browser, without the token.
        key: Ends the server; known to everyone who can read the home.
        token: The token that a reader must present once; empty if only this machine can connect.
        others: The addresses of the other homes that it shows.
        hosts: Further host names by which it is reached, see `Access`.
        base_path: The path below which a proxy asks for its pages.
        frames: Origins whose pages may show its own, see `Access`.
    """

    address: str
    key: str
    token: str = ""
    others: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    base_path: str = ""
    frames: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        """The address to open in a browser, with the token if one is needed."""
        return f"{self.address}?token={self.token}" if self.token else self.address


class ServerLock:
    """The right to serve a home: a lock that is released however the server ends."""

    def __init__(self, home: Path) -> None:
        self._path = folder_of(home) / "lock"
        self._place = folder_of(home) / "place.json"
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

    def __enter__(self) -> ServerLock:
        self._place.unlink(missing_ok=True)  # left by a server that was killed
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            self._place.unlink()
        self._release()


def folder_of(home: Path) -> Path:
    """Return the folder of a home in which its server keeps its files; it is made if it is missing."""
    folder = home / FOLDER
    with _writing_to(home):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _writing_to(home: Path) -> AbstractContextManager[None]:
    return files.storage_errors(f"write the dashboard's lock and address into the darkit home {home}")


def running(home: Path, others: Sequence[str] = (), access: Access | None = None) -> Place:
    """Return the server that runs; raise `ServerError` where more is asked for than what it was started with."""
    place = _published(home)
    if not set(others) <= set(place.others):
        shown = listing(list(place.others)) or "no other home"
        raise ServerError(
            f"A dashboard of {home} is running at {place.address} and shows {shown}. End it with `darkit stop-server`."
        )
    if access is not None and not (
        {*access.hosts, *access.frames} <= {*place.hosts, *place.frames} and access.base_path in ("", place.base_path)
    ):
        raise ServerError(
            f"A dashboard of {home} is running at {place.address} without these host names or this path. End it with "
            "`darkit stop-server`."
        )
    return place


def _published(home: Path) -> Place:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            values = read_object(home / FOLDER / "place.json")
            lists = [values.get(name) for name in ("others", "hosts", "frames")]
            others, hosts, frames = (tuple(map(str, found)) if isinstance(found, list) else () for found in lists)
            address, key = str(values["address"]), str(values["key"])
            base_path = str(values.get("base_path", ""))
            return Place(address, key, str(values.get("token", "")), others, hosts, base_path, frames)
        except PermissionError as error:
            raise ServerError(f"Another user runs a dashboard of {home}.") from error
        except (OSError, UnreadableError, KeyError) as error:
            if time.monotonic() > deadline:
                raise ServerError(f"A dashboard of {home} is running, but its address was not written.") from error
        time.sleep(0.05)  # it has started, but not published its address yet
