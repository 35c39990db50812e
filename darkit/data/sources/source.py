"""Sources of records: files, Hugging Face datasets and data in memory, which can be read repeatedly."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.data.sources.readers import DOCUMENTS, ENDINGS, TEXT_FIELD, check_fields, digest_file, read_file
from darkit.errors import DataError, listing, nearest
from darkit.runs.home import expanded

_WILD = re.compile(r"[*?\[]")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_HUB_PREFIX = "hf:"
_HUB_EXTRA = "pip install 'darkit[hf]'"


@dataclass(frozen=True)
class Record:
    """One row, or one document of a text file.

    Attributes:
        values: Its fields.
        file: The index of its file in `Source.files`; 0 for data in memory.
        where: Its readable position.
    """

    values: Mapping[str, Any]
    file: int
    where: str


@dataclass(frozen=True)
class Source:
    """Records that are read lazily, from the beginning each time.

    Attributes:
        files: Their files, or a name.
        fields: The fields of each record.
        read: Returns an iterator of the records.
        digest: Computes the `fingerprint`.
    """

    files: tuple[str, ...]
    fields: tuple[str, ...]
    read: Callable[[], Iterator[Record]]
    digest: Callable[[], str]

    def records(self) -> Iterator[Record]:
        """Read the records. Raises `DataError` at the first invalid one."""
        return self.read()

    def texts(self, field: str | None = None) -> Iterator[str]:
        """Read one field of the records, by default the first, which must be text. Raises `DataError`."""
        name = self.fields[0] if field is None else field
        for record in self.records():
            yield text_of(record, name)

    def fingerprint(self) -> str:
        """Return a sha256 of the content and of the reading options, independent of the files' names."""
        return self.digest()


def text_of(record: Record, field: str) -> str:
    """Return a field that must be text. Raises `DataError`."""
    value = record.values[field]
    if not isinstance(value, str):
        raise DataError(f"{record.where}: the field {field!r} must be text, not {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON allows half of a surrogate pair
        half = f"U+{ord(value[error.start]):04X}"
        raise DataError(
            f"{record.where}: the field {field!r} is not text: its character {error.start} is half of one, {half}."
        ) from error
    return value


def open_source(
    where: Any, *, fields: Sequence[str] = (TEXT_FIELD,), documents: str = "file", split: str = "train"
) -> Source:
    """Open data.

    Args:
        where: A file (``.txt``, ``.md``, ``.jsonl``, ``.csv`` or ``.parquet``), a folder of them, a pattern such as
            ``books/*.txt``, or a list of these; a dataset of Hugging Face ``datasets``, or its name on their hub,
            ``owner/name``, ``hf:NAME`` or ``hf:NAME:CONFIG``, or a dict of what ``datasets.load_dataset`` takes, such
            as ``{"path": "json", "data_files": "a.json.gz", "streaming": True}`` (all need ``darkit[hf]``); or a list
            of dicts. A `Source` is taken as it is.
        fields: The fields to read of each record; a text file has ``text``.
        documents: Unit of a text file: ``file``, ``paragraph`` or ``line``.
        split: Which split of a Hugging Face dataset that has several.

    Raises:
        DataError: The data does not exist or is of an unknown kind. Its content is checked when it is read.
    """
    if isinstance(where, Source):
        return where
    if where is None:
        raise DataError("data.path must say where the data is: a file, a folder or a pattern.")
    if documents not in DOCUMENTS:
        raise DataError(f"documents must be one of {', '.join(DOCUMENTS)}, not {documents!r}.")
    names = tuple(fields)
    if type(where).__module__.partition(".")[0] == "datasets":
        return _from_dataset(where, names, split, type(where).__name__)
    if isinstance(where, Mapping) and isinstance(where.get("path"), str):
        return _from_dataset(_load_dataset(where, split), names, split, where["path"])
    if isinstance(where, str | Path):
        hub_name = _hub_name(where)
        if hub_name:
            name, _, config = hub_name.partition(":")
            wanted = {"path": name, "name": config} if config else {"path": name}
            return _from_dataset(_load_dataset(wanted, split), names, split, f"{_HUB_PREFIX}{hub_name}")
        return _from_files(_find(where), names, documents)
    if isinstance(where, Sequence) and where and all(isinstance(item, str | Path) for item in where):
        return _from_files([path for item in where for path in _find(item)], names, documents)
    if isinstance(where, Sequence) and where and all(isinstance(item, Mapping) for item in where):
        return _from_rows(where, names, "row", "a list")
    raise DataError(
        "Data must be a file, a folder, a pattern, a list of these, a Hugging Face dataset, a dict with the path and "
        "whatever else datasets.load_dataset takes, or a list of dicts, not "
        f"{where!r}."[:300]
    )


def text_source(texts: Sequence[str]) -> Source:
    """Return a source of texts in memory, each a document."""
    return _from_rows([{TEXT_FIELD: text} for text in texts], (TEXT_FIELD,), "text", "a list")


def is_place(text: str) -> bool:
    """Return whether a word must mean files or a dataset on the hub, and not the name of a choice."""
    path = expanded(text)
    return path.exists() or bool(_WILD.search(text) or path.suffix or path.parent != Path() or _hub_name(text))


def is_on_hub(text: str) -> bool:
    """Return whether a word names a dataset on the Hugging Face hub."""
    return bool(_hub_name(text))


def _find(where: str | Path) -> list[Path]:
    """Return the files of a path or a pattern in a fixed order."""
    path = expanded(where)
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if _is_wanted(file, path)]
        if not found:
            raise DataError(f"The folder {path} has no file that ends with {listing(ENDINGS)}.")
        return found
    if path.exists():
        return [_check_ending(path)]
    if _WILD.search(str(where)):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - absolute ones too
        found = [match for match in matches if match.is_file()]
        if found:
            return [_check_ending(file) for file in found]
        raise DataError(f"No file matches {str(where)!r}.")
    there = [file.name for file in path.parent.iterdir() if not _is_hidden(file.name)] if path.parent.is_dir() else []
    known = f" {nearest(path.name, there)}." if there else ""
    may_be_dataset = not path.suffix and path.parent == Path()
    hint = f" A dataset on the Hugging Face hub is written {_HUB_PREFIX}{where}." if may_be_dataset else ""
    raise DataError(f"There is no file {path}.{known}{hint}")


def _is_wanted(file: Path, folder: Path) -> bool:
    hidden = any(map(_is_hidden, file.relative_to(folder).parts))
    return not hidden and file.suffix.lower() in ENDINGS and file.is_file()


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _check_ending(path: Path) -> Path:
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"The file {path} must end with {listing(ENDINGS)}.")
    return path


def _from_files(paths: Sequence[Path], fields: tuple[str, ...], documents: str) -> Source:
    def read() -> Iterator[Record]:
        for number, path in enumerate(paths):
            for place, values in read_file(path, fields, documents):
                yield Record(values, number, place)

    def fingerprint() -> str:
        digest = hashlib.sha256(json.dumps([documents, fields]).encode())
        for path in paths:
            digest.update(digest_file(path))
            digest.update(path.suffix.lower().encode())
        return digest.hexdigest()

    return Source(tuple(map(str, paths)), fields, read, fingerprint)


def _from_rows(rows: Iterable[Mapping[str, Any]], fields: tuple[str, ...], what: str, name: str) -> Source:
    """Return a source of dicts that can be iterated repeatedly.

    Args:
        rows: The dicts.
        fields: The fields to read of each.
        what: Name of one row in errors.
        name: Name of the data.
    """

    def read() -> Iterator[Record]:
        try:
            for number, row in enumerate(rows):
                where = f"{what} {number}"
                check_fields(where, fields, row)
                yield Record({field: row[field] for field in fields}, 0, where)
        except OSError as error:  # of the network or the disk, for a streamed dataset
            raise DataError(f"The data {name} cannot be read: {error.strerror or error}.") from error

    def fingerprint() -> str:
        digest = hashlib.sha256(json.dumps(fields).encode())
        for record in read():
            digest.update(content_key(record.values).to_bytes(16, "big"))
        return digest.hexdigest()

    return Source((name,), fields, read, fingerprint)


def content_key(values: Mapping[str, Any], salt: str = "") -> int:
    """Return a hash of 128 bits of the content."""
    text = json.dumps([salt, values], sort_keys=True, default=repr)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def _hub_name(where: str | Path) -> str:
    """Return a dataset name on the hub (``hf:NAME``, or ``owner/name`` without a folder ``owner``), or nothing."""
    text = str(where)
    if text.startswith(_HUB_PREFIX):
        return text.removeprefix(_HUB_PREFIX)
    path = Path(text)
    meant = isinstance(where, str) and _HUB_NAME.fullmatch(text) and path.suffix.lower() not in ENDINGS
    return text if meant and not path.parent.exists() else ""


def _load_dataset(wanted: Mapping[str, Any], split: str) -> Any:
    name = wanted["path"]
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"There is no file {name}; if it is the name of a dataset on the Hugging Face hub, {_HUB_EXTRA}."
        ) from error
    try:
        return datasets.load_dataset(**{"split": split, **wanted})
    except Exception as error:  # of the hub, the network or the dataset's own code
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"There is no file {name}, and the Hugging Face hub does not give a dataset of this name: {reason}"
        ) from error


def _from_dataset(data: Any, fields: tuple[str, ...], split: str, name: str) -> Source:
    if isinstance(data, Mapping):
        if split not in data:
            raise DataError(f"Unknown split {split!r}. {nearest(split, data)}.")
        data = data[split]
    known = getattr(data, "column_names", None)
    if known:
        for field in fields:
            if field not in known:
                raise DataError(f"The dataset has no field {field!r}. {nearest(field, known)}.")
        data = data.select_columns(list(fields))
    features = getattr(data, "features", None) or {}
    labels = {field: feature.names for field, feature in features.items() if type(feature).__name__ == "ClassLabel"}
    return _from_rows(_Labelled(data.with_format(None), labels), fields, f"{split} row", name)


@dataclass(frozen=True)
class _Labelled:
    """The rows of a dataset with label names instead of numbers; a number below 0 means no label."""

    rows: Iterable[Mapping[str, Any]]
    labels: Mapping[str, Sequence[str]]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for row in self.rows:
            named = {
                field: None if row[field] is None or row[field] < 0 else names[row[field]]
                for field, names in self.labels.items()
            }
            yield {**row, **named}
