"""Several folders of runs shown together: each has a label, and a run is addressed by label and name.

The address of a run is its name in the first root, which has no label, and ``label/name`` in another root. Names have
no slash, so an address has one meaning only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from darkit.errors import ConfigError, RunNotFoundError, nearest
from darkit.runs.names import check_name, is_name, run_path

MOST_ROOTS = 100


@dataclass(frozen=True)
class Root:
    """A folder of runs.

    Attributes:
        path: The folder, the ``base`` of a home; it need not exist yet.
        label: Short name of the home; empty for the first root, the reader's own.
        writable: Whether readers may leave requests and notes in its runs and delete them.
        seen: For a copy of a home elsewhere: returns when the copy of a run was last up to date, on the monotonic
            clock, or None.
    """

    path: Path
    label: str = ""
    writable: bool = True
    seen: Callable[[Path], float | None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.label:
            check_label(self.label)


def check_label(label: str) -> str:
    """Check the label of a root. Raises `ConfigError`."""
    if not is_name(label):
        raise ConfigError(
            f"{label!r} cannot be the label of a home. A label is 1 to 100 characters without '/', '\\' or ':', and "
            "does not start with a dot."
        )
    return label


def check_roots(roots: Sequence[Root]) -> tuple[Root, ...]:
    """Check that addresses of runs in these roots are unique. Raises `ConfigError`."""
    if not roots or len(roots) > MOST_ROOTS:
        raise ConfigError(f"The number of homes must be from 1 to {MOST_ROOTS}, not {len(roots)}.")
    labels = [root.label for root in roots]
    if labels[0]:
        raise ConfigError(f"The first home has no label, not {labels[0]!r}: it is the reader's own.")
    for label in labels[1:]:
        if not label:
            raise ConfigError("Every home but the first needs a label.")
        if labels.count(label) > 1:
            raise ConfigError(f"Two homes have the label {label!r}. Give each its own.")
    return tuple(roots)


def address_of(label: str, name: str) -> str:
    """Return the address of a run."""
    return f"{label}/{name}" if label else name


def split_address(address: object) -> tuple[str, str]:
    """Split the address of a run into label and checked name; the label of the first root is empty.

    Raises:
        NameInvalidError: It is not an address.
    """
    if isinstance(address, str) and "/" in address:
        label, _, name = address.partition("/")
        return check_name(label), check_name(name)
    return "", check_name(address)


def check_address(address: str) -> str:
    """Return an address of a run if it is one. Raises `NameInvalidError`."""
    split_address(address)
    return address


def is_address(address: str) -> bool:
    """Return whether this can be the address of a run."""
    label, slash, name = address.partition("/")
    return is_name(label) and is_name(name) if slash else is_name(address)


def find_root(roots: Sequence[Root], address: object) -> tuple[Root, Path]:
    """Return the root and the folder of the run with this address, whether the folder exists or not.

    Raises:
        NameInvalidError: It is not an address, or the folder is a link.
        RunNotFoundError: No root has this label.
    """
    label, name = split_address(address)
    for root in roots:
        if root.label == label:
            return root, run_path(root.path, name)
    labels = [root.label for root in roots if root.label]
    raise RunNotFoundError(f"No home is labelled {label!r}. {nearest(label, labels)}.")
