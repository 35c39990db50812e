"""Where a home is: a folder here, or on a machine that is reached by SSH, or in a bucket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from darkit.errors import ConfigError
from darkit.runs.home import expanded
from darkit.runs.inert import inert
from darkit.runs.names import is_name
from darkit.runs.roots import check_label

_LABELLED = re.compile(r"([^/=:]+)=(.+)", re.DOTALL)
_PASSWORD = re.compile(r"(://[^/@:]*:).*@", re.DOTALL)
_SCHEMES = ("ssh", "sftp", "s3", "file")
_FORMS = "Homes elsewhere are ssh://host/path, ssh://user@host:22/path, s3://bucket/path and file:///path"


@dataclass(frozen=True)
class Address:
    """Where a home is.

    Attributes:
        text: The address as it is shown.
        label: Short name of the home.
        kind: ``local``, ``file`` (a folder here that is copied), ``ssh`` or ``s3``.
        path: Its folder there; of a bucket with the bucket's name before it.
        host: The machine, or its name in the user's SSH config.
        user: The user there, or empty.
        port: The port, or None.
    """

    text: str
    label: str
    kind: str
    path: str
    host: str = ""
    user: str = ""
    port: int | None = None


def parse_addresses(texts: Sequence[str]) -> list[Address]:
    """Parse the addresses of homes, each with a label of its own.

    A label can stand before an address, as in ``lab=ssh://host/path``. Without one it is the name of the machine, the
    bucket or the folder, with a number where that is taken.

    Raises:
        ConfigError: One of them is no address, has a password, or two have the same label.
    """
    found: list[Address] = []
    given = [_parse(text) for text in texts]
    labels = [address.label for address, named in given if named]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"Two homes have the label {label!r}. Give each its own.")
    for address, named in given:
        label, count = address.label, 1
        while not named and label in labels:
            count += 1
            label = f"{address.label}-{count}"
        labels += [] if named else [label]
        found.append(Address(address.text, label, address.kind, address.path, address.host, address.user, address.port))
    places = [(one.kind, one.host, one.user, one.port, one.path) for one in found]
    for one, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"The home {one.text} is given twice.")
    return found


def _parse(text: str) -> tuple[Address, bool]:
    """Parse one address; return too whether its label was given."""
    match = _LABELLED.fullmatch(text)
    label, place = (check_label(match[1]), match[2]) if match else ("", text)
    if "://" not in place:
        return _local(place, label), bool(label)
    try:
        parts = urlsplit(place)
        port = parts.port
    except ValueError:  # its text may contain a part of a password
        raise ConfigError(f"{_shown(place)!r} is not an address: its machine or port is wrong. {_FORMS}.") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"Homes cannot be read from {parts.scheme}://. {_FORMS}.")
    _refuse_odd(place, parts)
    path = unquote(parts.path)
    if not path.strip("/"):
        raise ConfigError(f"The address {_shown(place)} lacks the folder of the darkit home. {_FORMS}.")
    if parts.scheme == "file":
        return Address(place, label or _label(Path(path).name), "file", path.rstrip("/")), bool(label)
    if parts.scheme == "s3":
        own = parts.netloc
        address = Address(place, label or _label(own), "s3", f"{own}/{path.strip('/')}")
        return address, bool(label)
    path = path.removeprefix("/~/")  # a path without a slash begins in the user's folder there
    host = parts.hostname or ""
    address = Address(place, label or _label(host), "ssh", path.rstrip("/"), host, unquote(parts.username or ""), port)
    return address, bool(label)


def _refuse_odd(place: str, parts: SplitResult) -> None:
    if parts.password is not None:
        raise ConfigError(
            f"The address {_shown(place)} has a password, which others can see. Use a key, with ssh-agent."
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"The address {_shown(place)} has a query or a fragment. {_FORMS}.")
    local = parts.scheme == "file"
    wrong_host = bool(parts.netloc) if local else not parts.hostname
    if wrong_host or not unquote(place).isprintable():
        raise ConfigError(f"{_shown(place)!r} is not an address. {_FORMS}.")


def _shown(place: str) -> str:
    """Return an address for a message, without what may be a password."""
    return inert(_PASSWORD.sub(r"\1...@", place))


def refuse_empty(text: str) -> None:
    """Refuse an empty home, which would be the working directory. Raises `ConfigError`."""
    if not text.strip():
        raise ConfigError(f"A home is empty ({text!r}): is a variable not set? Write '.' for the working directory.")


def _local(place: str, label: str) -> Address:
    refuse_empty(place)
    path = expanded(place).absolute()
    if not path.is_dir():
        raise ConfigError(f"The home {path} is not a folder. {_FORMS}.")
    name = path.name if path.name not in ("darkit", "home") else path.parent.name
    return Address(str(path), label or _label(name), "local", str(path))


def _label(text: str) -> str:
    """Make a label of a machine's or a folder's name."""
    label = re.sub(r"[/\\:\s]+", "-", text).strip("-.")[:60]
    return label if is_name(label) else "home"


def is_other(text: str) -> bool:
    """Return whether an address is elsewhere or has a label, and so cannot be the reader's own home."""
    return "://" in text or _LABELLED.fullmatch(text) is not None


def absolute(text: str) -> str:
    """Return an address that means the same in every working directory."""
    match = _LABELLED.fullmatch(text)
    label, place = (f"{match[1]}=", match[2]) if match else ("", text)
    return text if "://" in place else f"{label}{expanded(place).absolute()}"


def local_base(address: Address) -> Path:
    """Return the folder of the runs of a home on this machine."""
    return Path(address.path) / "base"
