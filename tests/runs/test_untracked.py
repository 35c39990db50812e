"""The environment of a run: untracked code and the versions of packages."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from darkit.runs.packages import changed_packages, installed_packages
from darkit.runs.provenance import describe_environment
from darkit.runs.untracked import LONGEST_FILE, MOST_FILES, imported_files
from tests.runs.test_provenance import git

Import = Callable[[str], None]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "known.py").write_text("width = 4\n")
    (folder / ".gitignore").write_text("local.py\n")
    git(folder, "add", "known.py", ".gitignore")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def imported(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Import a file of the repository."""

    def load(name: str, content: str | bytes | None = None) -> None:
        path = repository / name
        path.parent.mkdir(exist_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        module = "planted_" + re.sub(r"\W", "_", name)
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None
        monkeypatch.setitem(sys.modules, module, importlib.util.module_from_spec(spec))

    return load


def test_only_imported_untracked_files_are_recorded(repository: Path, imported: Import) -> None:
    imported("known.py")
    imported("mine.py", "depth = 3  # 层\n")
    imported("sub/[odd] name.py", "x = 1\n")
    (repository / "never_imported.py").write_text("y = 1\n")
    (repository / "staged.py").write_text("z = 1\n")
    git(repository, "add", "staged.py")
    imported("staged.py")
    found = describe_environment(repository / "sub")
    assert found["environment"]["files"] == {"mine.py": "depth = 3  # 层\n", "sub/[odd] name.py": "x = 1\n"}
    assert found["environment"]["left_out"] == {}
    assert found["git"]["untracked"] == ["mine.py", "sub/[odd] name.py"]
    assert "z = 1" in found["git"]["diff"], "what is staged is in the diff"


def test_before_the_first_commit_everything_is_untracked(tmp_path: Path, imported: Import, repository: Path) -> None:
    (repository / ".git").rename(tmp_path / "old")
    git(repository, "init", "-q")
    imported("known.py")
    found = describe_environment(repository)
    assert found["git"] == {"top": str(repository), "commit": "", "diff": "", "untracked": ["known.py"]}
    assert found["environment"]["files"] == {"known.py": "width = 4\n"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("local.py", "key = 'hunter2'\n", "git ignores it"),
        ("secrets.py", "key = 'hunter2'\n", "named like a secret"),
        ("my_api_keys.py", "key = 'hunter2'\n", "named like a secret"),
        ("aws-credentials.py", "key = 'hunter2'\n", "named like a secret"),
        (".env.py", "key = 'hunter2'\n", "named like a secret"),
        ("private/a.py", "key = 'hunter2'\n", "named like a secret"),
        ("binary.py", b"\xff\xfe hunter2", "not text"),
        ("zeros.py", "hunter2\0", "not text"),
        ("long.py", "# hunter2\n" * (LONGEST_FILE // 10 + 1), "longer than"),
    ],
)
def test_secrets_and_files_that_are_not_short_texts_are_listed_without_content(
    repository: Path, imported: Import, name: str, content: str | bytes, reason: str
) -> None:
    imported(name, content)
    found = describe_environment(repository)
    assert found["environment"]["files"] == {}
    assert list(found["environment"]["left_out"]) == [name]
    assert reason in found["environment"]["left_out"][name]
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("name", ["tokens.py", "tokenizer.py", "environment.py", "keys.py", "envelope.py"])
def test_other_names_are_not_secrets(repository: Path, imported: Import, name: str) -> None:
    imported(name, "x = 1\n")
    assert list(describe_environment(repository)["environment"]["files"]) == [name]


def test_the_number_and_size_of_files_are_limited(repository: Path, imported: Import) -> None:
    for number in range(MOST_FILES + 5):
        imported(f"m{number:03}.py", "x = 1\n")
    found = describe_environment(repository)["environment"]
    assert len(found["files"]) == MOST_FILES
    assert set(found["left_out"].values()) == {"there are too many"}
    for number in range(8):
        imported(f"m{number:03}.py", "x" * 90_000)
    found = describe_environment(repository)["environment"]
    assert sum(map(len, found["files"].values())) <= 500_000


def test_links_to_other_folders_and_odd_modules_are_ignored(
    repository: Path, imported: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside.py").write_text("hunter2")
    (repository / "link.py").symlink_to(tmp_path / "outside.py")
    imported("link.py")

    class Odd:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "odd_one", Odd())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "odd_two", None)  # type: ignore[arg-type]
    assert imported_files(repository) == []
    assert "hunter2" not in repr(describe_environment(repository))


def test_versions_are_those_of_importlib_metadata() -> None:
    found = installed_packages()
    for name in ("torch", "numpy", "pytest", "lightning", "darkit", "dash-mantine-components", "hydra-core"):
        assert found[name] == metadata.version(name)
    told = {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower() for one in metadata.distributions()}
    assert set(found) == told


def test_the_first_package_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch-0.0.1+mine.dist-info").mkdir()
    (tmp_path / "Old_Name-1.5-py3.11.egg-info").mkdir()
    (tmp_path / "here.egg-info").mkdir()
    (tmp_path / "here.egg-info" / "PKG-INFO").write_text("Name: here\nVersion: 2.0\n")
    (tmp_path / "broken.egg-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "missing.zip"))
    found = installed_packages()
    assert (found["torch"], found["old-name"], found["here"]) == ("0.0.1+mine", "1.5", "2.0")
    assert "broken" not in found


def test_changed_packages_lists_the_differences_of_two_environments() -> None:
    assert changed_packages({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == {
        "a": ["1", "2"],
        "b": ["1", None],
        "c": [None, "1"],
    }
    for before in (None, {}, [], "x", {"b": {"deep": []}}, {"b": "x" * 10_000}):
        assert changed_packages(before, {"a": "1"}) == {}, "an old run says nothing"
