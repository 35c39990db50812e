"""``darkit new``: a small working project to start from."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.errors import DarkitError, RunExistsError, StorageError
from darkit.runs.archive import refuse_archive

_EXAMPLES = """\
  darkit new my-project       then: cd my-project && darkit train model=mine
"""
_PLAIN = re.compile("[A-Za-z][A-Za-z0-9_-]{0,79}")  # a folder's name that needs no quotes as a run's


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "new", run, "make a small working project: model, config, data and test", _EXAMPLES)
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder to make")


def run(arguments: argparse.Namespace) -> int:
    """Copy the template: all of it, or nothing. Raises `ConfigError` when darkit is in an archive."""
    refuse_archive("its template")
    folder: Path = arguments.path
    there = folder.exists()
    stem = folder.resolve().name
    name = stem if _PLAIN.fullmatch(stem) else "mine"
    try:
        if there and (not folder.is_dir() or any(folder.iterdir())):
            raise RunExistsError(f"{folder} already exists. Choose a folder that is new or empty.")
        with as_file(files("darkit.cli") / "template") as template:
            shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        readme = folder / "README.md"
        readme.write_text(readme.read_text(encoding="utf-8").replace("PROJECT", name), encoding="utf-8")
    except (OSError, shutil.Error) as error:
        if isinstance(error, DarkitError):
            raise
        _remove(folder, there)
        reason = error.strerror or "the file system refused"
        raise StorageError(error.errno, f"Cannot create the project in {folder}: {reason}.") from error
    go = "" if folder.resolve() == Path.cwd() else f"  cd {shlex.quote(str(folder))}\n"
    print(f"Created {folder}. Next:\n{go}  darkit train model=mine name={name}\n  python -m pytest")
    return 0


def _remove(folder: Path, was_there: bool) -> None:
    """Remove what was copied into a folder that was empty or did not exist."""
    for path in folder.glob("*") if was_there else [folder]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # it was never made
                path.unlink()
