"""Where runs live on this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

from platformdirs import user_data_path

from darkit.errors import ConfigError

HOME_VARIABLES = ("DARWIN_KIT_HOME", "DSPIKE_HOME")


def home() -> Path:
    """Return the folder that holds everything darkit keeps.

    ``DARWIN_KIT_HOME`` wins, then ``DSPIKE_HOME`` (its older name), then the platform's folder for user data. The
    folder need not exist yet.

    Raises:
        ConfigError: The variable begins with ``~`` and a user who has no home here.
    """
    for variable in HOME_VARIABLES:
        value = os.environ.get(variable)
        if value:
            try:
                return Path(value).expanduser().absolute()
            except RuntimeError as error:
                raise ConfigError(f"{variable} is {value!r}, but no such user exists. Give a full path.") from error
    return user_data_path("darkit", appauthor=False)


def format_time(seconds: float, pattern: str) -> str:
    """Format a moment in Unix seconds as local time; a moment that no calendar has is empty."""
    try:
        return time.strftime(pattern, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""


def base() -> Path:
    """Return the root of all runs, ``<home>/base``: a run is a direct child of it."""
    return home() / "base"


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` or ``~user`` at its beginning replaced; of a user without a home, as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
