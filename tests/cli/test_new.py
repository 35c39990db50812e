"""``darkit new``: a project that trains and tests itself, all of it or nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from darkit.cli.main import main
from darkit.runs import load
from tests.children import Zygote
from tests.cli.parts import done, names, refused

TEMPLATE = {"README.md", "configs", "data.py", "model.py", "pytest.ini", "tests"}


def test_the_project_is_made_trains_and_its_own_test_passes(
    zygote: Zygote, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "a b" / "project"
    out = done(capsys, "new", str(project))
    assert names(project) == TEMPLATE
    lines = out.splitlines()
    assert lines[0] == f"Created {project}. Next:"
    assert lines[1] == f"  cd '{project}'"
    environment = os.environ | {"PATH": f"{zygote.commands}:{os.environ['PATH']}"}
    for command in lines[2:]:
        result = subprocess.run(
            command, shell=True, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    run = load("project")
    assert run.status == "finished"
    assert "mean_error" in run.log().columns, "what else a step returns"


def test_what_its_readme_says_is_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done(capsys, "new", str(tmp_path / "project"))
    text = (tmp_path / "project" / "README.md").read_text()
    for word in ("model.py", "data.py", "configs/"):
        assert word in text
        assert (tmp_path / "project" / word).exists()
    assert "trainer.lr=1e-3 name=project`" in text
    assert "darkit predict project " in text


def test_a_folder_whose_name_needs_quotes_has_a_plain_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "darkit train model=mine name=mine\n" in done(capsys, "new", str(tmp_path / "a b"))
    assert "darkit show mine" in (tmp_path / "a b" / "README.md").read_text()


def test_an_empty_folder_is_taken_and_the_current_one_needs_no_cd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert "cd " not in done(capsys, "new", ".")
    assert names(folder) == TEMPLATE


def test_a_folder_with_something_in_it_and_a_file_are_refused_and_stay_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        said = refused(capsys, "new", str(tmp_path / name))
        assert said == f"{tmp_path / name} already exists. Choose a folder that is new or empty."
    assert names(tmp_path / "full") == {".hidden"}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    said = refused(capsys, "new", str(tmp_path / "file" / "project"))
    assert said == f"Cannot create the project in {tmp_path / 'file' / 'project'}: Not a directory."


@pytest.mark.parametrize("there", [True, False])
def test_a_disk_that_fills_up_leaves_nothing_half_made(
    python: str, there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    if there:
        project.mkdir()
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from darkit.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # some files of the template fit, others do not
sys.exit(main(["new", {str(project)!r}]))
"""
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"Error: Cannot create the project in {project}: ")
    assert project.exists() == there
    assert names(project) == set()
    assert main(["new", str(project)]) == 0
