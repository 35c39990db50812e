"""A CSV file of a loop's own, beside the log of its run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from darkit.core.logger import columns_of
from darkit.engine.aliases import plain_number
from darkit.errors import LogError
from darkit.runs import base, files
from darkit.runs.log import CsvLog


class CSVLogger:
    """Append rows to a CSV file; each is in the file when `log` returns.

    Args:
        filename: The file. An existing one is continued.
        fieldnames: Its columns.

    Raises:
        LogError: It is the log of a run, which the run writes itself.
        StorageError: The file system refused.
    """

    def __init__(self, filename: str | Path, fieldnames: Collection[str]) -> None:
        self.filename = Path(filename)
        self.fieldnames = list(fieldnames)
        folder = self.filename.absolute().parent
        if self.filename.name == files.LOG and (folder.parent == base() or (folder / files.RUN).exists()):
            raise LogError(
                f"{self.filename} is written by the run itself: log into it with trainer.log(), or name another file."
            )
        with files.storage_errors(f"write {self.filename}"):
            self._log: CsvLog | None = CsvLog(self.filename, self.fieldnames, fixed=True)

    def log(self, data: Any) -> None:
        """Append a row: a dataclass instance or a mapping. Raises `LogError` for a column that the file does not have.

        What is not given is an empty field.
        """
        if self._log is None:
            raise LogError(f"{self.filename} is closed.")
        self._log.append([{name: plain_number(value) for name, value in columns_of(data).items()}])

    def close(self) -> None:
        """Take no more rows."""
        self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
