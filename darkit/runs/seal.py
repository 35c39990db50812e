"""A seal on what a run directory names outside of itself: only who has this home's key can have made it.

A run directory may come from somebody else. A script's path in it is followed, and its composed config is taken as it
is, only if this darkit home recorded them.
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from typing import Any

from darkit.runs.home import home

_KEY = "seal.key"
_LENGTH = 32  # bytes


def make(text: str, *, purpose: str = "", new_home: bool = True) -> str:
    """Return the seal of a text for a purpose; empty where no key can be kept.

    The first call makes the key, and the home for it; without ``new_home`` only in a home that exists.
    """
    key = _read() or (_create() if new_home or home().is_dir() else b"")
    return _digest(key, purpose, text) if key else ""


def holds(text: str, seal: Any, *, purpose: str = "") -> bool:
    """Tell whether `make` gave this seal to this text for this purpose, in this home."""
    key = _read()
    if not key or not isinstance(seal, str) or not seal.isascii():
        return False
    return hmac.compare_digest(_digest(key, purpose, text), seal)


def _digest(key: bytes, purpose: str, text: str) -> str:
    content = f"{purpose}\0{text}" if purpose else text
    return hmac.new(key, content.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def _read() -> bytes:
    try:
        key = (home() / _KEY).read_bytes()
    except OSError:
        return b""
    return key if len(key) == _LENGTH else b""


def _create() -> bytes:
    """Make the key under a name of its own first, so that of two processes one wins with a whole key."""
    path = home() / _KEY
    beside = path.with_name(f"{_KEY}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if os.write(descriptor, secrets.token_bytes(_LENGTH)) < _LENGTH:  # the disk is full
                return b""
        finally:
            os.close(descriptor)
        os.link(beside, path)
    except OSError:  # another process was first, or nothing can be kept here
        return _read()
    finally:
        with suppress(OSError):
            beside.unlink()
    return _read()
