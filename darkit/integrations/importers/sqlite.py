"""Untrusted databases of SQLite: opened so that neither they nor the files beside them change.

A database that its program has not closed keeps new rows in a file beside it, which only a reader that writes can take
in. Such a database is read from a copy.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from darkit.errors import SourceError
from darkit.integrations.importers.reading import opened
from darkit.runs.safe import is_strange

_ENDINGS = (".db", ".sqlite", ".sqlite3")
_MAGIC = b"SQLite format 3\0"
_BESIDE = ("-wal", "-journal")  # rows that are not in the database yet, or that must be taken back
_LARGEST_COPY = 4 * 2**30  # bytes
_LONGEST_VALUE = 64 * 2**20  # bytes
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_FUNCTIONS = {"count", "min", "max"}


def is_database(path: Path) -> bool:
    """Return whether a file is named as databases are, and begins as one of SQLite does."""
    if path.suffix not in _ENDINGS:
        return False
    try:
        with opened(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except SourceError:
        return False


class DatabaseFile:
    """A database, and its copy where one is needed; all that open it see the same rows.

    Args:
        path: The database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._address = ""

    @contextmanager
    def open(self) -> Iterator[Database]:
        """Open it for reading.

        Raises:
            SourceError: It cannot be read.
        """
        try:
            with closing(sqlite3.connect(self._address or self._find(), uri=True)) as connection:
                yield Database(connection)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise SourceError(f"Cannot read the database {self._path}: {error}.") from error
        except OSError as error:
            raise SourceError(f"Cannot read the database {self._path}: {error.strerror or error}.") from error

    def _find(self) -> str:
        """Return the address of the database, or of a copy that lives as long as this object."""
        if any(_has_content(Path(f"{self._path}{ending}")) for ending in _BESIDE):
            folder = Path(tempfile.mkdtemp(prefix="darkit-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._address = f"file:{quote(str(_copy(self._path, folder)))}"
        else:
            self._address = f"file:{quote(str(self._path))}?mode=ro&immutable=1"
        return self._address


class Database:
    """The tables of a database. Views are not tables: reading one could run what it contains.

    Attributes:
        tables: Their names.
        problems: Where the reading of one ended early, one sentence each.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        connection.set_authorizer(_authorize)
        self._connection = connection
        self.problems: list[str] = []
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 10000").fetchall()
        self.tables = {str(name) for (name,) in names}

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table, or nothing if it does not exist."""
        if table not in self.tables:
            return set()
        cursor = self._connection.execute(f'SELECT * FROM "{table}" LIMIT 0')  # noqa: S608 - the reader's own name
        return {str(column[0]) for column in cursor.description}

    def rows(
        self, table: str, columns: Sequence[str], *, where: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a table in the order in which they were written; a column that it does not have is None.

        Args:
            table: Its name; of a table that does not exist there are no rows.
            columns: The columns, in the order of the values.
            where: Values that columns must have.
        """
        there = self.columns(table)
        wanted = where or {}
        if not there or not set(wanted) <= there:
            return
        chosen = ", ".join(f'"{column}"' if column in there else "NULL" for column in columns)
        condition = " AND ".join(f'"{column}" IS ?' for column in wanted)
        query = f'SELECT {chosen} FROM "{table}"'  # noqa: S608 - the reader's own names, which the table has
        query += f" WHERE {condition}" if condition else ""
        count = 0
        try:
            for row in self._connection.execute(f"{query} ORDER BY rowid", tuple(wanted.values())):
                yield row
                count += 1
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self.problems.append(f"The table {table!r} could be read up to row {count:,} only: {error}.")


def digest_rows(parts: Iterable[Iterable[Any]]) -> tuple[str, int]:
    """Return the SHA-256 of rows and the size of what was hashed."""
    digest, size = hashlib.sha256(), 0
    for rows in parts:
        for row in rows:
            data = f"{row!r}\n".encode("utf-8", "surrogateescape")
            digest.update(data)
            size += len(data)
        digest.update(b"\0")
    return digest.hexdigest(), size


def _authorize(action: int, first: str | None, second: str | None, database: str | None, inner: str | None) -> int:
    allowed = action in _ALLOWED and (action != sqlite3.SQLITE_FUNCTION or second in _FUNCTIONS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _has_content(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except OSError:
        return False


def _copy(path: Path, folder: Path) -> Path:
    """Copy a database and what is beside it. Raises `SourceError`."""
    beside = [Path(f"{path}{ending}") for ending in _BESIDE]
    sources = [path, *(one for one in beside if _has_content(one) and not is_strange(one))]
    if sum(one.lstat().st_size for one in sources) > _LARGEST_COPY:
        raise SourceError(f"{path} is open in its program and too large to be copied. Close the program and try again.")
    for one in sources:
        with opened(one) as file, (folder / one.name).open("wb") as copy:
            shutil.copyfileobj(file, copy)
    return folder / path.name
