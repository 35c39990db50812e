"""Processes that darkit starts import nothing that happens to lie in the working directory."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import darkit
from darkit.cli.main import main
from darkit.runs.child import environment, python_module

PACKAGE = Path(darkit.__file__).parent
SHADOWS = ("http", "queue", "json", "uvicorn", "darkit", "dataclasses", "site", "sitecustomize2", "fcntl", "secrets")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules named like others; the path of what they write when they are imported."""
    folder, canary = tmp_path / "work", tmp_path / "canary"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"open({str(canary)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    return canary


def test_a_dashboard_in_the_background_imports_nothing_of_the_working_directory(home: Path, planted: Path) -> None:
    started = subprocess.run(
        python_module("darkit", "start", "--daemon", "--port", "0"), env=environment({}), capture_output=True, text=True
    )
    try:
        assert started.stdout.startswith("http://127.0.0.1:"), started.stderr
        assert not planted.exists(), planted.read_text()
    finally:
        assert main(["stop-server"]) == 0


@pytest.mark.few(1)
@pytest.mark.parametrize("module", ["darkit", "darkit.cli.verify_child"])
def test_other_processes_begin_without_it_too(planted: Path, module: str) -> None:
    words = ("--version",) if module == "darkit" else ("batches", "--version")
    done = subprocess.run(python_module(module, *words), env=environment({}), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not planted.exists(), planted.read_text()


def test_the_processes_of_a_sweep_begin_without_it_too(planted: Path, tmp_path: Path) -> None:
    for name in ("multiprocessing", "selectors"):  # the server of multiprocessing imports them first
        (planted.parent / "work" / f"{name}.py").write_text(f"open({str(planted)!r}, 'a').write({name!r})\n")
    code = """
import multiprocessing, os
from darkit.sweep import pool
if __name__ == "__main__":
    pool._start_server()
    child = multiprocessing.get_context("forkserver").Process(target=print, args=("here",))
    child.start()
    child.join()
    assert "PYTHONSAFEPATH" not in os.environ
    assert not child.exitcode
"""
    script = tmp_path / "darkit-command.py"  # as the command `darkit`, whose own folder is the first of its path
    script.write_text(code)
    done = subprocess.run([sys.executable, script], env=environment({}), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
    assert not planted.exists(), planted.read_text()


def test_every_process_of_darkits_is_started_so() -> None:
    for path in PACKAGE.rglob("*.py"):
        if (
            path.name not in ("child.py", "final_report.py", "provenance.py", "trial.py")
            and "template" not in path.parts
        ):
            assert not re.search(r"sys\.executable", path.read_text()), path


def test_a_process_finds_the_darkit_that_starts_it_though_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "darkit.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in PACKAGE.rglob("*.py"):
            packed.write(path, path.relative_to(PACKAGE.parent))
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import subprocess, darkit
from darkit.runs.child import environment, python_module
assert "darkit.zip" in darkit.__file__
found = environment({})
print(found["PYTHONPATH"])
command = [*python_module("darkit")[:2], "-c", "import darkit; print(darkit.__file__)"]
done = subprocess.run(command, env={"PYTHONPATH": found["PYTHONPATH"]}, capture_output=True, text=True)
print(done.stdout)
"""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run([sys.executable, "-c", code, str(archive)], capture_output=True, text=True, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == str(archive), done.stderr
    assert lines[1].startswith(str(archive))
