"""What every reader of logs returns: a `Source` for each run that it finds, and an `Imported` when it is read."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkit.integrations.importers.rows import Rows

_TELLS_NOTHING = re.compile(r"version_\d+|checkpoint-\d+|lightning_logs|runs|logs|tensorboard|tb|events|outputs?|\.")
UNKNOWN = "unknown"  # the state of a run whose log does not say how it ended


@dataclass(frozen=True)
class ImportedMedium:
    """One medium as `darkit.runs.media.MediaStore.add` takes it."""

    kind: str
    key: str
    step: int
    data: bytes
    ending: str
    time: float
    caption: str = ""


def no_media() -> Iterable[ImportedMedium]:
    """Return no media."""
    return ()


@dataclass
class Imported:
    """A run as another tool logged it.

    Attributes:
        rows: The log.
        axes: Names of values that are to be shown over another value than the step, and that one's name.
        config: The model's or the training's settings.
        media: Reads the media anew at each call, one at a time.
        state: ``finished``, ``stopped``, ``crashed``, or `UNKNOWN` where the source does not say.
        reason: Why, in one sentence.
        traceback: The exception's traceback, if the source has it.
        started: When the run began, in Unix seconds, or 0.
        ended: When it was last heard of, in Unix seconds, or 0.
        last_step: The last step that something was logged at, where that is not the last row's.
        max_step: The step at which it was to end, or None.
        tags: Short words about it.
        note: Free text about it.
        facts: What else the source says about the run, for ``origin`` in ``run.json``.
        provenance: ``command``, ``git``, ``host`` and ``versions`` of ``run.json``, as far as they are known.
        packages: Versions of the packages that were installed: name -> version.
        system: Rows of the system log.
        console: What the process printed.
        problems: What could not be read, one sentence each.
    """

    rows: Rows = field(default_factory=Rows)
    axes: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    media: Callable[[], Iterable[ImportedMedium]] = no_media
    state: str = UNKNOWN
    reason: str = ""
    traceback: str = ""
    started: float = 0.0
    ended: float = 0.0
    last_step: int = 0
    max_step: int | None = None
    tags: Sequence[str] = ()
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    system: Sequence[Mapping[str, Any]] = ()
    console: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source(abc.ABC):
    """One run in the log of another tool.

    Attributes:
        path: The file or folder that holds it.
        name: What it is called there, or what its place suggests; not a valid run name yet.
    """

    path: Path
    name: str

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """The tool's name, such as ``tensorboard``."""

    @property
    def identity(self) -> str:
        """What tells this run from the others in the same log; by default it is alone in its place."""
        return ""

    @abc.abstractmethod
    def digest(self) -> tuple[str, int]:
        """Return the SHA-256 of what `read` reads, and its size in bytes.

        Raises:
            SourceError: It cannot be read.
        """

    @abc.abstractmethod
    def read(self) -> Imported:
        """Read the run as far as it is whole; what is not is said in `Imported.problems`.

        Raises:
            SourceError: Nothing of it can be read.
        """


@dataclass
class Folder:
    """A folder in which sources are looked for.

    Attributes:
        path: The folder.
        base: The folder above the path that the user gave.
        files: The names of its regular files.
        folders: The names of its folders that are still to be looked into; a reader removes those that it reads itself.
        remarks: What a reader found and does not import, one sentence each.
    """

    path: Path
    base: Path
    files: list[str]
    folders: list[str]
    remarks: list[str] = field(default_factory=list)

    def name(self) -> str:
        """Return a name for a run from its place: from the user's path on, or from a folder above that tells more."""
        parts = list(self.path.relative_to(self.base).parts)
        above = self.base
        while above.name and all(_TELLS_NOTHING.fullmatch(part) for part in parts):
            parts.insert(0, above.name)
            above = above.parent
        return "-".join(parts) or "run"
