"""Folders on other machines and in buckets, through fsspec: lists of files, and ranges of their bytes. Reading only."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from darkit.errors import ConfigError
from darkit.remote.address import Address
from darkit.runs.safe import UnreadableError, open_regular, read_at

_CONNECTING = 15.0  # seconds
PATIENCE = 60.0  # seconds for an answer


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
        """Return what is in a folder. Raises `FileNotFoundError` or `PermissionError`, or errors of its own."""

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most so many bytes of a file, from a place on. Raises as `list` does."""

    def close(self) -> None:
        """Close the connection, without waiting."""


class FolderStore:
    """Folders of this machine that are copied rather than read in place: a page never waits for their disk."""

    def __init__(self, address: Address) -> None:
        del address  # the paths say it all

    def list(self, path: str) -> list[Item]:
        """Return what is in a folder."""
        found = []
        with os.scandir(path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    state = entry.stat(follow_symlinks=False)
                    folder, regular = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
                    found.append(
                        Item(entry.name, folder, regular, state.st_size, str(state.st_mtime_ns), state.st_mtime)
                    )
        return found

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most so many bytes of a file, from a place on."""
        try:
            with open_regular(Path(path)) as descriptor:
                return read_at(descriptor, count, start)
        except UnreadableError as error:
            raise PermissionError(errno.EACCES, error.reason) from error

    def close(self) -> None:
        """Close nothing."""


class SshStore:
    """Folders on a machine that is reached by SSH.

    ``~/.ssh/config``, the agent and ``~/.ssh/known_hosts`` are used as by ``ssh``. A machine whose key is not known is
    refused.
    """

    def __init__(self, address: Address) -> None:
        from fsspec.asyn import sync  # type: ignore[import-untyped]
        from sshfs import SSHFileSystem  # type: ignore[import-untyped]

        options: dict[str, Any] = {"username": address.user} if address.user else {}
        if address.port is not None:
            options["port"] = address.port
        self._system = SSHFileSystem(
            address.host,
            known_hosts=(),  # those of the user; without this, sshfs checks none
            connect_timeout=_CONNECTING,
            login_timeout=_CONNECTING,
            keepalive_interval=_CONNECTING / 3,
            keepalive_count_max=3,
            skip_instance_cache=True,
            **options,
        )
        self._in_time = partial(sync, self._system.loop, timeout=PATIENCE)
        try:
            self._files: Any = self._in_time(self._system.client.start_sftp_client)
        except BaseException:
            self.close()
            raise

    def list(self, path: str) -> list[Item]:
        """Return what is in a folder."""
        with _builtin_errors():
            found = self._system.ls(path, detail=True, timeout=PATIENCE)
        return [_item(one, one.get("mtime")) for one in found]

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most so many bytes of a file, from a place on."""
        with _builtin_errors():
            return bytes(self._in_time(self._read, path, start, count))

    async def _read(self, path: str, start: int, count: int) -> bytes:
        """Read through asyncssh: the files of sshfs wait for an answer for ever."""
        async with self._files.open(path, "rb") as file:
            return bytes(await file.read(count, start))

    def close(self) -> None:
        """Close the connection, without waiting."""
        self._system.loop.call_soon_threadsafe(self._system.client.abort)


@contextmanager
def _builtin_errors() -> Iterator[None]:
    """Turn errors of SFTP into those that every store raises."""
    from asyncssh import SFTPNoSuchFile, SFTPPermissionDenied

    try:
        yield
    except SFTPNoSuchFile as error:
        raise FileNotFoundError(errno.ENOENT, error.reason) from error
    except SFTPPermissionDenied as error:
        raise PermissionError(errno.EACCES, error.reason) from error


class S3Store:
    """Folders in a bucket. Credentials and endpoint are those that the AWS tools use."""

    def __init__(self, address: Address) -> None:
        from s3fs import S3FileSystem  # type: ignore[import-untyped]

        limits = {"connect_timeout": _CONNECTING, "read_timeout": PATIENCE, "retries": {"max_attempts": 2}}
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


_KINDS: dict[str, tuple[Callable[[Address], Store], str]] = {
    "file": (FolderStore, ""),
    "ssh": (SshStore, "sshfs"),
    "s3": (S3Store, "s3fs"),
}


def check_installed(address: Address) -> None:
    """Check that the packages which read from an address are installed. Raises `ConfigError`."""
    import importlib.util

    package = _KINDS[address.kind][1]
    if package and importlib.util.find_spec(package) is None:
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
        return f"No answer within {PATIENCE:g} s"
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
