"""Views of the table of runs that people saved under a name: what they ask for, and how it is shown.

The home's ``views.json`` is read and written here only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.lock import one_writer
from darkit.runs.safe import UnreadableError, read_object

VIEWS = "views.json"
MOST = 100
LONGEST_NAME = 60  # characters
LONGEST_ADDRESS = 4_000  # characters


def read_views(home: Path) -> dict[str, str]:
    """Return the saved views of a home by name, each as the query of an address; what has another form is left out."""
    try:
        return _views_of(read_object(home / VIEWS))
    except (OSError, UnreadableError):
        return {}


def save_view(home: Path, name: str, address: str | None) -> dict[str, str]:
    """Save a view under a name, in place of another one of that name, and return all.

    Args:
        home: The home.
        name: The name.
        address: The query of the address, such as ``q=lr%3D1``; None removes the view.

    Raises:
        ConfigError: The name is empty, something is too long, there are too many views, or those that are there cannot
            be read and would be lost.
        StorageError: The file system refused.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST_NAME:
        raise ConfigError(f"A view needs a name of at most {LONGEST_NAME} characters, not {name[:80]!r}.")
    if address is not None and len(address) > LONGEST_ADDRESS:
        raise ConfigError(f"A view has at most {LONGEST_ADDRESS} characters, not {len(address)}: choose fewer columns.")
    with one_writer(home):
        values = _kept(home)
        values.pop(name, None)
        if address is not None:
            values[name] = address
        views = _views_of(values)
        if len(views) > MOST:
            raise ConfigError(f"There are at most {MOST} saved views; remove one first.")
        files.write_json(home / VIEWS, values)
    return views


def _kept(home: Path) -> dict[str, object]:
    """Return all that is saved, also what is no view: another version of darkit may know what it is."""
    try:
        return read_object(home / VIEWS)
    except FileNotFoundError:
        return {}
    except (OSError, UnreadableError) as error:
        raise ConfigError(f"The saved views stay as they are: {error}. Repair or remove {home / VIEWS}.") from error


def _views_of(values: Mapping[str, object]) -> dict[str, str]:
    return {name: address for name, address in values.items() if _is_view(name, address) and isinstance(address, str)}


def _is_view(name: object, address: object) -> bool:
    texts = isinstance(name, str) and isinstance(address, str)
    return texts and 0 < len(str(name)) <= LONGEST_NAME and len(str(address)) <= LONGEST_ADDRESS
