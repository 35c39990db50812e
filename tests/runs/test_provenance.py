from __future__ import annotations

import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from darkit.runs import files
from darkit.runs.provenance import describe_environment
from tests.runs.parts import line_of, python


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=N", "-c", "user.email=n@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "model.py").write_text("width = 4\n")
    git(folder, "add", "model.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_versions_command_and_host_are_told() -> None:
    facts = describe_environment()
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["versions"]["torch"] == metadata.version("torch")
    assert facts["versions"]["darkit"] == metadata.version("darkit")
    assert facts["command"] == [sys.executable, *sys.orig_argv[1:]]
    assert facts["host"] == {"name": socket.gethostname(), "system": platform.platform()}


def test_a_clean_repository_is_its_commit(repository: Path) -> None:
    facts = describe_environment(repository)
    assert facts["git"] == {"top": str(repository), "commit": git(repository, "rev-parse", "HEAD"), "diff": ""}
    assert facts["folder"] == str(repository)


def test_the_working_folder_is_the_default(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "sub").mkdir()
    monkeypatch.chdir(repository / "sub")
    assert describe_environment()["git"]["commit"] == git(repository, "rev-parse", "HEAD")


def test_changes_are_told_and_can_be_applied_whatever_the_persons_git_is_set_to(repository: Path) -> None:
    (repository / "model.py").write_text("width = 8\n")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "false")
    found = describe_environment(repository)["git"]
    assert found["commit"] == git(repository, "rev-parse", "HEAD")
    assert "\n-width = 4\n+width = 8\n" in found["diff"]
    git(repository, "checkout", "model.py")
    (repository / "patch").write_text(found["diff"])
    git(repository, "apply", "patch")
    assert (repository / "model.py").read_text() == "width = 8\n"


@pytest.mark.parametrize("setting", ["diff.noprefix", "diff.mnemonicPrefix", "diff.relative"])
def test_the_changes_of_all_folders_are_told_with_their_whole_paths(repository: Path, setting: str) -> None:
    """Otherwise they would be applied to a file of the same name in another folder, or not at all."""
    (repository / "sub").mkdir()
    (repository / "sub" / "model.py").write_text("width = 4\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    for folder in (repository, repository / "sub"):
        (folder / "model.py").write_text(f"width = {len(folder.name)}\n")
    git(repository, "config", setting, "true")
    found = describe_environment(repository / "sub")["git"]["diff"]
    git(repository, "checkout", "-q", ".")
    (repository / "patch").write_text(found)
    git(repository, "apply", "patch")
    assert (repository / "model.py").read_text() == "width = 7\n"
    assert (repository / "sub" / "model.py").read_text() == "width = 3\n"


def test_a_huge_diff_is_cut_and_says_so(repository: Path) -> None:
    (repository / "model.py").write_text("x" * 300_000)
    diff = describe_environment(repository)["git"]["diff"]
    assert 200_000 < len(diff) < 200_100
    assert diff.endswith(" more characters left out]")


def test_no_repository_or_no_commit_yet_is_no_error(tmp_path: Path) -> None:
    assert describe_environment(tmp_path)["git"] == {}
    git(tmp_path, "init", "-q")
    assert describe_environment(tmp_path)["git"] == {}
    assert describe_environment(tmp_path / "missing")["git"] == {}


def test_no_git_is_no_error(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_environment(repository)["git"] == {}


def test_a_diff_that_git_cannot_make_is_not_taken_for_none(repository: Path) -> None:
    (repository / ".git" / "index").write_bytes(b"garbage")
    assert describe_environment(repository)["git"]["diff"] == "[git could not tell]\n"


@pytest.mark.skipif(
    (3, 13) <= sys.version_info < (3, 13, 3),
    reason="a missing attribute of any module is a SystemError in a deleted folder (CPython's gh-130932)",
)
def test_a_working_folder_that_was_deleted_is_no_error(tmp_path: Path) -> None:
    script = """
        import os, sys
        from darkit.runs.provenance import describe_environment
        os.makedirs(sys.argv[1])
        os.chdir(sys.argv[1])
        os.rmdir(sys.argv[1])
        print(describe_environment()["git"], flush=True)
    """
    with python(script, tmp_path / "gone") as process:
        assert line_of(process) == "{}"


def test_everything_told_can_be_written_as_json(repository: Path, tmp_path: Path) -> None:
    (repository / "model.py").write_bytes(b"# caf\xe9 is not UTF-8\n")
    facts = describe_environment(repository)
    assert facts["environment"]["files"] == {}
    files.write_json(tmp_path / "run.json", facts)
    assert files.read_json(tmp_path / "run.json") == facts
