"""``darkit new``: a small working project to start from."""

from __future__ import annotations

import argparse
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.errors import RunExistsError, StorageError

_EXAMPLES = """\
  darkit new my-project       then: cd my-project && darkit train model=mine
"""


def add_parser(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "new", run, "make a small working project: model, config, data and test", _EXAMPLES)
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder to make")


def run(arguments: argparse.Namespace) -> int:
    """Copies the template."""
    folder: Path = arguments.path
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunExistsError(f"{folder} is there already; choose a folder that is new or empty.")
    try:
        with as_file(files("darkit.cli") / "template") as template:
            shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    except OSError as error:
        raise StorageError(error.errno, f"Cannot make the project in {folder}: {error.strerror}.") from error
    print(f"Made {folder}. Go on with:\n  cd {folder}\n  darkit train model=mine\n  python -m pytest")
    return 0
