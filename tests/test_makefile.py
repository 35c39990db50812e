"""The Makefile: what `make` lists, and that the documentation names no target that is not there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / ".ci" / "run"]


def make(*words: str, folder: Path = ROOT) -> str:
    command = ["make", "--no-print-directory", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def listed() -> dict[str, str]:
    rows = [re.fullmatch(r"make (\S+) +(\S.*)", line) for line in make().splitlines()]
    assert all(rows)
    return {row[1]: row[2] for row in rows if row}


def test_make_alone_lists_every_target_with_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(listed()) == set(phony.split())
    assert {"train", "test", "check", "bench", "start", "clean"} <= set(listed())


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.exists()], ids=lambda path: path.name)
def test_every_target_that_the_documentation_names_is_there(path: Path) -> None:
    named = re.findall(r"(?:^|`|&& )make ((?:[a-z]+ ?)+)", path.read_text(), re.MULTILINE)
    words = {word for group in named for word in group.split()}
    if path.name in ("README.md", "run"):
        assert words, "this one names some"
    assert words <= set(listed())


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("train", "-m darkit.train trainer.max_step=3"),
        ("test", "-m pytest -q"),
        ("check", "ruff format --check ."),
        ("bench", "tests/benchmarks/run.py"),
        ("device", "-m tests.device"),
        ("start", "darkit start"),
        ("wheel", "-m build --wheel"),
        ("release", ".ci/release.py"),
    ],
)
def test_a_target_runs_its_command_after_what_it_needs_is_installed(target: str, command: str) -> None:
    shown = make("--dry-run", "--always-make", target, "ARGS=trainer.max_step=3" if target == "train" else "ARGS=")
    assert command in shown
    assert shown.index("-m venv") < shown.index("pip") < shown.index(command)
    assert ("[test,dev]" in shown) == (target in ("test", "check", "bench", "device", "wheel", "release"))


def test_what_a_target_needs_is_made_again_only_when_the_requirements_changed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", "run", "test"):
        (tmp_path / ".venv" / name).write_text("")
    assert "install" not in make("--dry-run", "test", folder=tmp_path)
    later = (tmp_path / ".venv" / "test").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert "install" in make("--dry-run", "test", folder=tmp_path)


def test_a_python_that_is_too_old_is_said_before_anything_is_made(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = subprocess.run(
        ["make", "-C", str(tmp_path), "train", f"PYTHON={old}"], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "darkit needs Python 3.11 or newer" in result.stdout
    assert not (tmp_path / ".venv").exists()


def test_clean_leaves_what_is_the_persons(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in (".venv/bin/python", "dist/a.whl", "darkit/__pycache__/a.pyc", "darkit/a.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    make("clean", folder=tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", "darkit/a.py", "notes.txt"}
