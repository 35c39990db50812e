"""Every command and every page over run directories in which one thing after the other is hostile.

Nothing that they hold is executed, imported or followed out of the directory; each is text, or one sentence.
"""

from __future__ import annotations

import os
import shutil
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from darkit.cli.main import main
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.runs.inert import inert
from tests.cli.hostile import (
    KINDS,
    NAMES,
    PLANTED,
    SECRET,
    STEERING,
    STRUCTURED,
    VALUES,
    make_outside,
    paths_of,
    read_structure,
    replace_file,
    watched,
    with_value,
    write_structure,
)
from tests.dashboard.test_hostile import everything

LOOKS = (("show",), ("show", "--json"), ("show", "--console"), ("verify",), ("stop", "--no-wait"))
MANIFEST = "iter-4-ckpt.json"
EXPORT = ("export", "--force", "--output", "weights.safetensors")
INPUT = "[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]"


class Place:
    """A home with a run to be made hostile, a folder beside it that is none of its business, and a planted module."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self.folder, self.base = folder, runs
        self.outside = make_outside(folder / "outside")
        self.made = folder / "canary"
        touch = f"from pathlib import Path\nPath({str(self.made)!r}).touch()\nmake = Path\n"
        (folder / f"{PLANTED}.py").write_text(touch)
        self.pattern = folder / "pattern"
        shutil.move(runs / "numbers", self.pattern)
        shutil.rmtree(runs / "text")
        notes = {
            "tags": ["a"],
            "note": "b",
            "archived": False,
            "evaluations": [{"time": 1.0, "data": "c", "checkpoint": "iter-4-ckpt", "metrics": {"loss": 1.0}}],
        }
        write_structure(self.pattern / "notes.json", notes)
        status = read_structure(self.pattern / "status.json")
        write_structure(self.pattern / "status.json", {**status, "reason": "why", "traceback": "Traceback\nE: e"})

    def new(self, name: str) -> Path:
        """Make a copy of the run under a name."""
        return shutil.copytree(self.pattern, self.base / name, symlinks=True)

    def clear(self) -> None:
        """Remove all copies."""
        shutil.rmtree(self.base)
        self.base.mkdir()


@pytest.fixture
def place(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Place(tmp_path, runs)


def check(place: Place, capsys: pytest.CaptureFixture[str], words: Sequence[str], what: str) -> None:
    """Run a command over a hostile run, which must end by itself, say text alone, and bring nothing about."""
    capsys.readouterr()
    with watched(place.folder, place.outside) as watch, warnings.catch_warnings():
        warnings.simplefilter("default")  # a warning is text on standard error, which is looked at below
        try:
            code = main(words)
        except BaseException as error:
            raise AssertionError(f"{words} over {what}: {type(error).__name__}: {str(error)[:500]}") from error
    out, err = capsys.readouterr()
    about = f"{words} over {what} said {(out + err)[-1500:]!r}"
    assert not watch.trips, f"{words} over {what}: {watch.trips}"
    assert not place.made.exists(), about
    assert not (place.outside / "made").exists(), about
    assert not list((place.outside / "folder").iterdir()), about
    assert SECRET not in out + err, about
    assert "Traceback (most recent call last)" not in err, about
    assert code in (0, 1, 2), about
    assert inert(out, lines=True) == out, about
    assert inert(err, lines=True) == err, about
    if code == 2:
        assert sum(line.startswith("Error: ") for line in err.splitlines()) == 1, about


def look(place: Place, capsys: pytest.CaptureFixture[str], hostile: dict[str, str], commands: Any) -> None:
    """List all runs, open their pages, and look at each."""
    check(place, capsys, ("runs",), "all")
    check(place, capsys, ("runs", "--json"), "all")
    check(place, capsys, ("prune", "--older-than", "0s", "--keep-best", "1", "--dry-run"), "all")
    check(place, capsys, ("du", "--json"), "all")
    names = list(hostile)
    with watched(place.folder, place.outside) as watch:
        library = Library(place.base, LogCache())
        for start in range(0, len(names), 60):
            everything(library, names[start : start + 60])
    assert not watch.trips
    assert not place.made.exists()
    for name, what in hostile.items():
        for command, *more in commands:
            words = (command, name, INPUT) if command == "predict" else (command, name)
            if command == "train":
                words = ("train", f"resume={name}")
            check(place, capsys, (*words, *more), what)


def fields(place: Place, file: str, *, every_value: bool) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield every place in a file with a value for it.

    Without ``every_value`` the values go round, text is also tried with what steers a terminal, and what `darkit eval`
    and a resumed training take from a composed config also with what would run code.
    """
    content = read_structure(place.pattern / file)
    for number, path in enumerate(paths_of(content)):
        if every_value:
            yield from ((path, kind) for kind in VALUES)
            continue
        kinds = [list(VALUES)[number % len(VALUES)]]
        if isinstance(_at(content, path), str):
            kinds.append("steering")
        if file == "config.yaml" and path[:1] == ("data",) and len(path) > 1:
            kinds += ["name", "target", "environment"]
        if file == "config.yaml" and path[:1] == ("overrides",):
            kinds += ["override", "environment"]
        yield from ((path, kind) for kind in dict.fromkeys(kinds))


def _at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def poison(place: Place, file: str, chosen: Sequence[tuple[tuple[Any, ...], str]]) -> dict[str, str]:
    """Make a run for each; return what is hostile by name."""
    hostile = {}
    content = read_structure(place.pattern / file)
    for number, (path, kind) in enumerate(chosen):
        name = f"h{number}"
        write_structure(place.new(name) / file, with_value(content, path, VALUES[kind](place.outside)))
        hostile[name] = f"{file}:{'.'.join(map(str, path))} = {kind}"
    return hostile


DEEPER = {
    "config.yaml": (("eval",), ("train", "trainer.max_step=5")),
    "run.json": (("predict",), ("eval", "--data", "regression", "samples=8", "val_samples=8")),
    "config.json": (("predict",), EXPORT),
    "trainer_config.json": (("train", "trainer.max_step=5"),),
    "status.json": (("train", "trainer.max_step=5"),),
    "notes.json": (("eval",),),
    MANIFEST: (("predict",), EXPORT),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("file", [*STRUCTURED, MANIFEST])
def test_no_field_of_a_run_is_believed(place: Place, capsys: pytest.CaptureFixture[str], file: str) -> None:
    chosen = list(fields(place, file, every_value=False))
    if file != "config.yaml":
        hostile = poison(place, file, chosen)
        look(place, capsys, hostile, LOOKS[:1])
        some = dict(list(hostile.items())[:: max(1, len(hostile) // 4)])
        look(place, capsys, some, (*LOOKS[1:], *DEEPER[file]))
        return
    hostile = poison(place, file, [(path, kind) for path, kind in chosen if path[:1] == ("data",)])
    look(place, capsys, hostile, DEEPER[file][:1])
    place.clear()
    hostile = poison(place, file, [(path, kind) for path, kind in chosen if path[:1] == ("overrides",) or not path])
    look(place, capsys, hostile, DEEPER[file][1:])


@pytest.mark.few(5)
@pytest.mark.parametrize("name", [*NAMES, MANIFEST, "iter-4-ckpt.pth", "iter-9-ckpt.pth"])
def test_no_file_of_a_run_is_followed_waited_for_or_read_without_end(
    place: Place, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    hostile = {}
    for kind in KINDS:
        replace_file(place.new(kind.__name__), name, kind, place.outside)
        hostile[kind.__name__] = f"{name} {kind.__name__}"
    before = {path: path.read_bytes() for path in sorted(place.outside.iterdir()) if path.is_file()}
    look(place, capsys, hostile, LOOKS[:3])
    few = {
        key: what for key, what in hostile.items() if key in ("as_link", "as_linked_folder", "as_new_link", "as_pipe")
    }
    look(place, capsys, few, (("predict",), ("train", "trainer.max_step=5")))
    assert {path: path.read_bytes() for path in sorted(place.outside.iterdir()) if path.is_file()} == before


@pytest.mark.soak
@pytest.mark.parametrize("file", [*STRUCTURED, MANIFEST])
def test_every_field_with_every_value_and_every_command(
    place: Place, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    chosen = list(fields(place, file, every_value=True))
    for start in range(0, len(chosen), 60):
        hostile = poison(place, file, chosen[start : start + 60])
        look(place, capsys, hostile, (*LOOKS, ("predict",), ("eval",), EXPORT, ("train", "trainer.max_step=5")))
        place.clear()


def test_the_watch_trips_on_what_it_is_for(place: Place) -> None:
    def connect() -> None:
        with socket.socket() as one:
            one.settimeout(0.01)
            one.connect(("192.0.2.1", 9))

    for act in (
        lambda: (place.outside / "secret.txt").read_text(),
        lambda: (place.folder.parent / "elsewhere").write_text("x"),
        lambda: os.system("true"),
        lambda: __import__(PLANTED),
        connect,
    ):
        with watched(place.folder, place.outside) as watch, suppress(OSError):
            act()
        assert watch.trips
    assert inert(STEERING, lines=True) != STEERING
