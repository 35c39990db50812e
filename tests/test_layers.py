"""Imports point downwards only: the rooms of docs/architecture.md as a table, and the code walked against it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

import darkit

PACKAGE = Path(darkit.__file__).parent
TEMPLATES = {"template"}  # what a user's own code looks like

MAY_IMPORT = {  # room -> the rooms that it may import, besides itself
    "errors": set(),
    "version": set(),
    "models": set(),
    "examples": set(),
    "runs": {"errors"},
    "data": {"errors", "runs"},
    "engine": {"errors", "runs"},
    "prediction": {"errors", "runs", "engine", "data", "models"},
    "core": {"errors", "runs", "engine", "data", "prediction"},
    "lm": {"errors", "runs", "data", "engine", "prediction", "core"},
    "remote": {"errors", "runs"},
    "dashboard": {"errors", "runs", "remote"},
    "integrations": {"errors", "runs", "engine", "prediction", "core"},
    "sweep": {"errors", "runs", "engine"},
    "reproduction": {"errors", "runs", "engine"},
    "cli": {
        *("errors", "version", "runs", "engine", "data", "prediction", "core", "remote", "dashboard", "integrations"),
        "sweep",
        "reproduction",
        "lm",
    },
    "darkit": {
        "errors",
        "version",
        "runs",
        "engine",
        "core",
        "dashboard",
        "cli",
    },  # darkit, darkit.train and darkit.__main__
}
WINGS = {  # room -> its folders and ground files, each importing only those before it; "" are the room's other files
    "data": ["collate", "locks", "sources", "text", "objectives", ""],
    "engine": [
        *(
            "lightning",
            "aliases",
            "config",
            "device",
            "log",
            "spiking",
            "lightning_results",
            "lightning_loaders",
            "lightning_hooks",
            "data",
            "stop",
            "metrics",
            "steps",
            "checkpoints",
            "description",
        ),
        *("callbacks", "launchers", "stores", "meeting", "processes", "together", "resume", "series"),
        *("outcome", "composed", "session", "native", ""),
    ],
    "prediction": ["text", "", "exporting"],
    "integrations": ["importers", "exporters", "wandb", ""],
    "dashboard": ["texts", "reading", "view", "charts", "pages", "server", "terminal", ""],
}
ONLY_OUTSIDE = {"errors": set(), "version": set(), "runs": {"filelock", "numpy", "platformdirs", "polars"}}
OF_LOGS = ("darkit.integrations.importers", "darkit.integrations.exporters")
HEAVY = {"torch", "lightning", "pytorch_lightning", "transformers"}
NEVER_OUTSIDE = {"dashboard": HEAVY, "remote": HEAVY}

Import = tuple[str, str, str]  # importing module, imported module, when: at "once", "later", or for "types" alone


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not TEMPLATES & set(path.relative_to(PACKAGE).parts)
}


def room_of(module: str) -> str:
    parts = module.split(".")
    return "darkit" if len(parts) == 1 or parts[1] in ("train", "__main__") else parts[1]


def wing_of(module: str) -> str:
    """Return the folder or ground file of a module's room, or nothing for the room's other files."""
    parts = module.split(".")
    known = WINGS.get(room_of(module), [])
    return parts[2] if len(parts) > 2 and parts[2] in known else ""


def imports_of(module: str) -> Iterator[Import]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    yield from ((module, name, when) for name, when in _walk(ast.parse(path.read_text()), package, "once"))


def _walk(node: ast.AST, package: str, when: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) + 1 - child.level] if child.level else []
            source = ".".join([*parent, *([child.module] if child.module else [])])
            for alias in child.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source, when
        elif isinstance(child, ast.Constant) and child.value in MODULES and child.value != "darkit":
            yield child.value, "later"  # the name of a module of ours, for import_module
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _walk(ast.Module([part], []), package, "types")
            for part in child.orelse:
                yield from _walk(ast.Module([part], []), package, when)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "once"
            yield from _walk(child, package, "later" if later else when)


@cache
def all_imports() -> list[Import]:
    return [found for module in MODULES for found in imports_of(module)]


@cache
def our_imports() -> list[Import]:
    return [found for found in all_imports() if found[1].partition(".")[0] == "darkit"]


def test_the_walk_sees_imports_of_every_kind() -> None:
    assert ("darkit", "darkit.errors", "once") in all_imports()
    assert ("darkit.runs.log", "darkit.runs.files", "once") in all_imports()
    assert ("darkit.runs.log", "polars", "types") in all_imports()
    assert ("darkit.runs.table", "polars", "later") in all_imports()
    assert ("darkit", "darkit.engine.training", "later") in all_imports()


def test_every_room_is_in_the_table() -> None:
    assert {room_of(module) for module in MODULES} <= set(MAY_IMPORT)


def test_the_table_has_no_cycles() -> None:
    assert len(list(TopologicalSorter(MAY_IMPORT).static_order())) == len(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_those_below_it_and_not_even_late_or_for_types(room: str) -> None:
    upwards = [
        f"{module} imports {imported} ({when})"
        for module, imported, when in our_imports()
        if room_of(module) == room and room_of(imported) not in MAY_IMPORT[room] | {room}
    ]
    assert not upwards


@pytest.mark.parametrize("room", WINGS)
def test_a_folder_imports_only_those_before_it_in_its_room(room: str) -> None:
    place = {wing: number for number, wing in enumerate(WINGS[room])}
    folders = {path.name for path in (PACKAGE / room).iterdir() if (path / "__init__.py").exists()}
    assert folders <= set(place)
    assert not [
        f"{module} imports {imported} ({when})"
        for module, imported, when in our_imports()
        if room_of(module) == room_of(imported) == room and place[wing_of(module)] < place[wing_of(imported)]
    ]


def test_no_modules_import_each_other_in_a_circle_and_not_even_late_or_for_types() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, imported, _ in our_imports():
        own = MODULES[module].name == "__init__.py" and imported.startswith(f"{module}.")  # a room's public names
        if imported in MODULES and imported != module and not own:
            graph[module].add(imported)
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("room", [*ONLY_OUTSIDE, *NEVER_OUTSIDE])
def test_what_must_be_light_uses_nothing_heavy(room: str) -> None:
    outside = {imported.partition(".")[0] for module, imported, _ in all_imports() if room_of(module) == room}
    outside -= {*sys.stdlib_module_names, "darkit"}
    assert not outside & NEVER_OUTSIDE.get(room, set())
    assert outside <= ONLY_OUTSIDE.get(room, outside)


def test_logs_of_other_tools_are_read_and_written_with_runs_alone() -> None:
    alone = [found for found in all_imports() if found[0].startswith(OF_LOGS)]
    assert alone
    ours = {imported for _, imported, _ in alone if imported.partition(".")[0] == "darkit"}
    assert {room_of(imported) for imported in ours} == {"errors", "runs", "integrations"}
    assert all(imported.startswith(OF_LOGS) for imported in ours if room_of(imported) == "integrations")
    outside = {imported.partition(".")[0] for _, imported, when in alone if when == "once"}
    assert outside <= {*sys.stdlib_module_names, "darkit"}  # other packages are loaded when a log needs them
    assert not {imported.partition(".")[0] for _, imported, _ in alone} & {"torch", "lightning", "transformers"}


EXTRAS = {"darkit.dashboard.terminal.app": "textual"}  # what a module needs that not everybody has
LIGHT = [
    module
    for module in MODULES
    if (
        room_of(module) in ("errors", "version", "runs", "remote", "dashboard")
        or module in ("darkit", "darkit.cli.main", "darkit.cli")
    )
    and (module not in EXTRAS or find_spec(EXTRAS[module]) is not None)
]


def test_importing_what_must_be_light_loads_neither_torch_nor_lightning() -> None:
    script = """
import importlib, json, sys
heavy = {}
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
    found = {"torch", "lightning", "pytorch_lightning", "transformers"} & set(sys.modules)
    if found:
        heavy[module] = sorted(found)
        break
print(json.dumps(heavy))
"""
    assert {"darkit", "darkit.runs.log"} <= set(LIGHT)
    command = [sys.executable, "-c", script, json.dumps(LIGHT)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout) == {}


@pytest.mark.parametrize("words", ["", "--version", "runs", "runs --json"])
def test_commands_that_only_read_load_neither_torch_nor_lightning(words: str) -> None:
    script = """
import sys
from darkit.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(sorted({"torch", "lightning", "pytorch_lightning", "transformers", "hydra"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script, *words.split()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
