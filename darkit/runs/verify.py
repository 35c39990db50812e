"""Whether a checkpoint is what it should be: its bytes against its manifest, and its form. Imports no torch."""

from __future__ import annotations

import errno
import os
import pickletools
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from darkit.runs import files
from darkit.runs.checkpoints import Checkpoint, manifest_path
from darkit.runs.safe import UnreadableError
from darkit.runs.sharded import INDEX, find_folder_damage, sha256_of

# What torch lets a pickle call although a few bytes then fill any memory, as in bytearray(2**40).
_GREEDY = {"builtins bytearray": "builtins.bytearray", "__builtin__ bytearray": "builtins.bytearray"}
_END = struct.Struct("<4s4H2LH")  # the end record of a zip: signature, disks, counts of entries, place, comment
_MORE_ENTRIES = 0xFFFF  # the count of an archive with more entries than the field holds
_OF_MACHINE = frozenset(  # errors that say nothing about a file's content: it may be intact
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ETIMEDOUT)
)
_FOLDER = 0x10  # the attribute of MS-DOS, in an entry of an archive


def find_problem(checkpoint: Checkpoint) -> str:
    """Read a whole checkpoint and say why it cannot be trusted, or nothing.

    Size and sha256 are compared with the manifest; of a file without one, the CRC of every entry of the archive is
    checked.
    """
    return find_damage(checkpoint) or find_form_problem(checkpoint)


def find_damage(checkpoint: Checkpoint, sha256: Callable[[Path], str] = sha256_of, *, raises: bool = False) -> str:
    """Compare the bytes of a checkpoint with its manifest and say what differs, or nothing; without one, nothing.

    Args:
        checkpoint: The checkpoint.
        sha256: Called with the path of a file; returns its digest.
        raises: Whether to raise an error of the machine (`error_of_machine`) instead of describing it.
    """
    return checkpoint.problem or _problem_of_reading(lambda: _find_damage(checkpoint, sha256), raises)


def find_form_problem(checkpoint: Checkpoint, *, raises: bool = False) -> str:
    """Say why the archives of a checkpoint must not be loaded, or nothing. Only without a manifest all is read.

    ``raises`` is as for `find_damage`.
    """
    return checkpoint.problem or _problem_of_reading(lambda: _find_form_problem(checkpoint), raises)


def error_of_machine(error: BaseException | None) -> OSError | None:
    """Return the error behind one that says nothing about a file's content, such as too many open files; or None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_MACHINE:
            return error
        error = error.__cause__
    return None


def _find_damage(checkpoint: Checkpoint, sha256: Callable[[Path], str]) -> str:
    if checkpoint.is_folder:
        damage = find_folder_damage(checkpoint.path, files.read_json(manifest_path(checkpoint.path)))
        return damage if checkpoint.path.is_dir() or not damage else "it is gone"
    differs = checkpoint.sha256 and sha256(checkpoint.path) != checkpoint.sha256
    return "its sha256 is not the one in its manifest" if differs else ""


def _find_form_problem(checkpoint: Checkpoint) -> str:
    if not checkpoint.is_folder:
        return find_archive_problem(checkpoint.path, read=not checkpoint.sha256)
    listed = files.read_json(manifest_path(checkpoint.path)).get("files")
    for name in listed if isinstance(listed, dict) else ():
        if name != INDEX and (problem := find_archive_problem(checkpoint.path / name)):
            return f"its file {name} cannot be trusted: {problem}"
    return ""


def _problem_of_reading(find: Callable[[], str], raises: bool) -> str:
    try:
        return find()
    except FileNotFoundError:
        return "it is gone"
    except (UnreadableError, OSError) as error:
        if raises and (cause := error_of_machine(error)) is not None:
            raise cause from error
        return f"it cannot be read ({error.reason if isinstance(error, UnreadableError) else error.strerror})"


def find_archive_problem(path: Path, *, read: bool = False) -> str:
    """Return why a file is not an archive of `torch.save`, or empty text.

    Such an archive is stored without compression, so what it unpacks to is never larger than the file, and its pickle
    makes nothing that is larger than what describes it: that keeps a small file from filling the memory.

    Args:
        path: The file.
        read: Whether to read every entry and compare its CRC.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return "it is compressed, which torch.save never does"
            if any(entry.external_attr & _FOLDER for entry in entries):
                return "it has a folder as an entry, which torch would read as whatever is in memory"
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                return "it unpacks to more than its own size"
            if _counted_entries(path) not in (len(entries), _MORE_ENTRIES):
                return "its directory does not list all of its entries"
            torn = archive.testzip() if read else None
            greedy = set() if torn else _find_greedy(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"it is not an archive as torch.save makes it ({error})"
    if torn is not None:
        return f"its entry {torn!r} does not have its CRC"
    if greedy:
        return f"it asks for memory that it does not fill, with {', '.join(sorted(greedy))}"
    return ""


def _counted_entries(path: Path) -> int:
    """Return the number of entries that the end record of an archive tells, where it has no comment."""
    with path.open("rb") as file:
        file.seek(-_END.size, os.SEEK_END)
        signature, *_, count, _, _, _ = _END.unpack(file.read())
    return count if signature == b"PK\5\6" else _MORE_ENTRIES


def find_greedy_globals(file: IO[bytes]) -> set[str]:
    """Return the names of functions in an archive's pickle that may take more memory than the file is long."""
    with zipfile.ZipFile(file) as archive:
        return _find_greedy(archive)


def _find_greedy(archive: zipfile.ZipFile) -> set[str]:
    found = set()
    for entry in archive.infolist():
        pickled = archive.read(entry) if entry.filename.endswith("data.pkl") else b""
        if not any(f"{name.split()[1]}\n".encode() in pickled for name in _GREEDY):  # to read each operation is slow
            continue
        with suppress(ValueError):  # not a pickle from there on; torch reports it at loading
            for operation, argument, _ in pickletools.genops(pickled):
                if operation.name == "GLOBAL" and argument in _GREEDY:
                    found.add(_GREEDY[argument])
    return found
