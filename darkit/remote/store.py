"""Folders on other machines and in buckets, through fsspec: lists of files, and ranges of their bytes. Reading only."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from darkit.errors import ConfigError
from darkit.remote.address import Address

_PATIENCE = 15  # seconds to connect, and without a sign of life


@dataclass(frozen=True)
class Item:
    """One entry of a folder.

    Attributes:
        name: Its name.
        folder: Whether it is a folder.
        regular: Whether it is a regular file; links are neither.
        size: Bytes.
        stamp: A value that changes with its content; empty where the store has none.
        modified: When it changed last, in Unix seconds, or None.
    """

    name: str
    folder: bool
    regular: bool
    size: int
    stamp: str
    modified: float | None = None


class Store(Protocol):
    """What a mirror needs of a home elsewhere."""

    def list(self, path: str) -> list[Item]:
        """Return what is in a folder. Raises `FileNotFoundError` without it."""

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most so many bytes of a file, from a place on."""

    def close(self) -> None:
        """Close the connection, without waiting."""


class SshStore:
    """Folders on a machine that is reached by SSH.

    ``~/.ssh/config``, the agent and ``~/.ssh/known_hosts`` are used as by ``ssh``. A machine whose key is not known is
    refused.
    """

    def __init__(self, address: Address) -> None:
        from sshfs import SSHFileSystem  # type: ignore[import-untyped]

        options: dict[str, Any] = {"username": address.user} if address.user else {}
        if address.port is not None:
            options["port"] = address.port
        self._system = SSHFileSystem(
            address.host,
            known_hosts=(),  # those of the user; without this, sshfs checks none
            connect_timeout=_PATIENCE,
            login_timeout=_PATIENCE,
            keepalive_interval=_PATIENCE / 3,
            keepalive_count_max=3,
            skip_instance_cache=True,
            **options,
        )

    def list(self, path: str) -> list[Item]:
        """Return what is in a folder."""
        return [_item(found, found.get("mtime")) for found in self._system.ls(path, detail=True)]

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most so many bytes of a file, from a place on."""
        with self._system.open(path, "rb") as file:
            file.seek(start)
            return bytes(file.read(count))

    def close(self) -> None:
        """Close the connection, without waiting."""
        self._system.loop.call_soon_threadsafe(self._system.client.abort)


class S3Store:
    """Folders in a bucket. Credentials and endpoint are those that the AWS tools use."""

    def __init__(self, address: Address) -> None:
        from s3fs import S3FileSystem  # type: ignore[import-untyped]

        limits = {"connect_timeout": _PATIENCE, "read_timeout": _PATIENCE, "retries": {"max_attempts": 2}}
        self._system = S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=limits)

    def list(self, path: str) -> list[Item]:
        """Return what is in a folder."""
        found = self._system.ls(path, detail=True, refresh=True)
        own = path.rstrip("/")
        return [_item(one, one.get("ETag")) for one in found if str(one["name"]).rstrip("/") != own]

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most so many bytes of a file, from a place on."""
        return bytes(self._system.cat_file(path, start=start, end=start + count)) if count else b""

    def close(self) -> None:
        """Close nothing: connections to a bucket end by themselves."""


_KINDS: dict[str, tuple[Callable[[Address], Store], str]] = {"ssh": (SshStore, "sshfs"), "s3": (S3Store, "s3fs")}


def check_installed(address: Address) -> None:
    """Check that the packages which read from an address are installed. Raises `ConfigError`."""
    import importlib.util

    package = _KINDS[address.kind][1]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"A home at {address.kind}:// needs the package {package}: pip install 'darkit[remote]'.")


def connect(address: Address) -> Store:
    """Connect to where a home is. Raises what the connection raises."""
    return _KINDS[address.kind][0](address)


def reason_of(error: BaseException, address: Address) -> str:
    """Return in a sentence why a home elsewhere cannot be read."""
    kind = type(error).__name__
    if kind == "HostKeyNotVerifiable":
        return f"The key of {address.host} is not in ~/.ssh/known_hosts. Connect once with: ssh {address.host}"
    if isinstance(error, FileNotFoundError):
        return f"{address.text} has no folder 'base': it is not a darkit home"
    if isinstance(error, TimeoutError):
        return "No answer in time"
    text = " ".join(str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error).split())
    return text[:300] or kind


def _item(found: dict[str, Any], stamp: object) -> Item:
    kind = found.get("type")
    name = posixpath.basename(str(found["name"]).rstrip("/"))
    size = found.get("size")
    changed = found.get("mtime")
    modified = changed.timestamp() if isinstance(changed, datetime) else None
    size = size if isinstance(size, int) else 0
    return Item(name, kind == "directory", kind == "file", size, str(stamp or ""), modified)
