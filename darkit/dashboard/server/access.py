"""By which names and below which path the server is reached, where a proxy is between it and the browser.

The pages' own addresses are relative, so a proxy that takes its prefix away, such as JupyterHub's or that of VS Code,
needs no setting for it. One that keeps the prefix is followed by ``--base-path`` or the header ``X-Forwarded-Prefix``,
which counts only when it comes from this machine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Scope

from darkit.errors import ConfigError

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~%@:+-]+)+/?")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+:[0-9]{1,5}")
_LONGEST = 1000  # characters of a prefix


@dataclass(frozen=True)
class Access:
    """Further ways to reach the server.

    Attributes:
        hosts: Further host names, in lower case and without a port.
        base_path: The path below which a proxy asks for the pages, without a slash at its end; empty for none.
        frames: Origins whose pages may show ours as a part of theirs, besides our own.
    """

    hosts: tuple[str, ...] = ()
    base_path: str = ""
    frames: tuple[str, ...] = ()

    def below(self, scope: Scope, headers: Headers) -> Scope:
        """Return a request as it is below the prefix of a proxy."""
        prefix = self.base_path or _forwarded(scope, headers)
        raw = scope.get("raw_path") or scope["path"].encode()
        start = prefix.encode()
        if not prefix or not (raw == start or raw.startswith(start + b"/")):  # the proxy has taken it away
            return scope
        rest = raw[len(start) :] or b"/"
        return {**scope, "raw_path": rest, "path": unquote(rest.decode("latin-1"), errors="replace")}


def make_access(hosts: Sequence[str] = (), base_path: str = "", frames: Sequence[str] = ()) -> Access:
    """Check what a person has set. Raises `ConfigError`."""
    names = []
    for host in hosts:
        name = host.strip().lower().strip("[]")
        if not _NAME.fullmatch(name) and not _is_address(name):
            raise ConfigError(f"--allow-host takes a host name without port, such as hub.example.org, not {host!r}.")
        names.append(name)
    path = "/" + base_path.strip("/") if base_path.strip("/") else ""
    if path and not _is_prefix(path):
        raise ConfigError(f"--base-path takes a path, such as /darkit, not {base_path!r}.")
    for origin in frames:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"A page that may show the dashboard is named by its origin, not {origin!r}.")
    return Access(tuple(dict.fromkeys(names)), path, tuple(dict.fromkeys(frames)))


def _forwarded(scope: Scope, headers: Headers) -> str:
    """Return the prefix that a proxy on this machine names, without a slash at its end."""
    given = headers.getlist("x-forwarded-prefix")
    client = scope.get("client")
    if len(given) != 1 or not client or not is_loopback(client[0]) or not _is_prefix(given[0]):
        return ""
    return given[0].rstrip("/")


def _is_prefix(path: str) -> bool:
    return len(path) <= _LONGEST and _PREFIX.fullmatch(path) is not None and ".." not in path.split("/")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own."""
    return _is_address(address) and ipaddress.ip_address(address).is_loopback
