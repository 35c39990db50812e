"""Paths of media in the folders of other tools."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath
from typing import Any

from darkit.errors import SourceError


def inside(folder: Path, path: Any) -> Path:
    """Return a file below a folder. Raises `SourceError` for a path that leads out of it or through a link."""
    parts = PurePosixPath(path).parts if isinstance(path, str) and "\0" not in path else ()
    if not parts or ".." in parts or parts[0] == "/" or "\\" in path:
        raise SourceError(f"The path {str(path)[:100]!r} is not one below {folder}.")
    place = folder
    for part in parts[:-1]:
        place = place / part
        try:
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise SourceError(f"{place} is not a folder.")
        except OSError as error:
            raise SourceError(f"{place} does not exist.") from error
    return place / parts[-1]
