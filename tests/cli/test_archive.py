"""darkit imported from a zip, or without its configs: what is wrong and what works, in one sentence."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import darkit
from darkit.cli import compose
from darkit.errors import ConfigError
from darkit.runs.archive import refuse_archive

PACKAGE = Path(darkit.__file__).parent
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import darkit
from darkit.cli.main import main
assert sys.argv[1] in darkit.__file__
for words in (["train", "model=mymodel"], ["new", "project"], ["start", "--port", "0"], ["runs"]):
    print(main(words), flush=True)
"""


def test_from_a_zip_each_command_works_or_says_what_does(home: Path, tmp_path: Path) -> None:
    archive = tmp_path / "darkit.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in PACKAGE.rglob("*.py"):
            packed.write(path, path.relative_to(PACKAGE.parent))
    command = [sys.executable, "-c", SCRIPT, str(archive)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["2", "2", "2", "0"]
    said = done.stderr.splitlines()
    assert len(said) == 3, done.stderr
    for line, what in zip(said, ("its configs", "its template", "the scripts of its pages"), strict=True):
        assert line == (
            f"Error: darkit is imported from the archive {archive}, where {what} cannot be read: unpack the archive "
            "and put the folder on the path (PYTHONPATH) in its place, or install darkit with pip."
        )
    assert not (tmp_path / "project").exists()


def test_without_its_configs_it_says_where_they_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "__file__", str(tmp_path / "darkit" / "cli" / "compose.py"))
    with pytest.raises(
        ConfigError, match=rf"train\.yaml is neither in {tmp_path}/darkit/configs nor in {tmp_path}/configs\. Install"
    ):
        compose.config_dir()


def test_an_installed_package_is_no_archive() -> None:
    refuse_archive("anything")
