"""A package that is imported from a zip: its modules work there, its other files cannot be read."""

from __future__ import annotations

from pathlib import Path

from darkit.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def refuse_archive(what: str, package: Path = _PACKAGE) -> None:
    """Refuse to run where the package's other files cannot be read.

    Args:
        what: The files that are needed.
        package: The folder of the package.

    Raises:
        ConfigError: The package is in an archive.
    """
    archive = next((parent for parent in package.parents if parent.is_file()), None)
    if archive is not None:
        raise ConfigError(
            f"darkit is imported from the archive {archive}, where {what} cannot be read: unpack the archive and put "
            "the folder on the path (PYTHONPATH) in its place, or install darkit with pip."
        )
