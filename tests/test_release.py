"""A release: version and changelog are written together or not at all; what was built is used from an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import pytest

from darkit.version import __version__

ROOT = Path(__file__).resolve().parents[1]
OLD = "## 0.8.0 (2026-01-02)\n\n- Old.\n"
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout in git, with a changelog of its own."""
    copy = tmp_path / "darkit"
    listed = subprocess.run(
        ["git", "ls-files", "Makefile", "constraints.txt", "pyproject.toml", ".ci", "darkit/version.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    for name in {*listed, ".ci/release.py"}:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "CHANGELOG.md").write_text(f"# Changes\n\n## 0.9.0 (unreleased)\n\n- New.\n\n{OLD}")
    commit(copy)
    return copy


def commit(folder: Path) -> None:
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)


def release(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / ".ci" / "release.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_version_and_date_are_written(checkout: Path) -> None:
    result = release(checkout, "1.0.0", "--date", "2027-03-04", "--no-build")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Next: git commit -am 'Release 1.0.0' && git tag v1.0.0 ")
    assert '__version__ = "1.0.0"\n' in (checkout / "darkit" / "version.py").read_text()
    changelog = (checkout / "CHANGELOG.md").read_text()
    assert changelog == f"# Changes\n\n## 1.0.0 (2027-03-04)\n\n- New.\n\n{OLD}"


@pytest.mark.parametrize(
    ("version", "changelog", "said"),
    [
        ("", None, "Give a version such as 0.2.0, not ''"),
        ("1.0", None, "Give a version such as 0.2.0, not '1.0'"),
        ("v1.0.0", None, "Give a version such as 0.2.0, not 'v1.0.0'"),
        ("0.8.0", None, "CHANGELOG.md has a released version 0.8.0 already."),
        ("1.0.0", f"# Changes\n\n{OLD}", "The first section of CHANGELOG.md must be"),
        ("1.0.0", "# Changes\n", "The first section of CHANGELOG.md must be"),
        (
            "1.0.0",
            f"## 1 (unreleased)\n\n{OLD}",
            "The unreleased section of CHANGELOG.md is",
        ),
    ],
)
def test_a_refused_release_changes_nothing(checkout: Path, version: str, changelog: str | None, said: str) -> None:
    if changelog is not None:
        (checkout / "CHANGELOG.md").write_text(changelog)
        commit(checkout)
    before = [(checkout / name).read_bytes() for name in ("CHANGELOG.md", "darkit/version.py")]
    result = release(checkout, version, "--no-build")
    assert result.returncode == 2
    assert result.stderr.startswith(f"Error: {said}")
    assert [(checkout / name).read_bytes() for name in ("CHANGELOG.md", "darkit/version.py")] == before


def test_uncommitted_changes_are_refused(checkout: Path) -> None:
    (checkout / "Makefile").write_text("")
    result = release(checkout, "1.0.0", "--no-build")
    assert result.returncode == 2
    assert result.stderr == "Error: Commit or stash these changes first:\nM Makefile\n"


def test_a_failed_build_takes_version_and_date_back(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text("no toml")
    commit(checkout)
    assert release(checkout, "1.0.0").returncode != 0
    status = subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_what_was_built_is_used_from_an_empty_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    import release as script  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:  # stands for an environment with the wheel and its requirements
        venv.create(Path(folder, "venv"), with_pip=False)
        paths = {"base": f"{folder}/venv", "platbase": f"{folder}/venv"}
        site = Path(sysconfig.get_path("purelib", vars=paths))
        needed = [path for path in sys.path if path.endswith("site-packages")]
        (site / "darkit.pth").write_text("\n".join([str(ROOT), *needed]))
        binaries = Path(folder, "venv", "bin")
        (binaries / "darkit").write_text(
            f"#!{binaries / 'python'}\nimport sys\nfrom darkit.cli.main import main\nsys.exit(main())\n"
        )
        (binaries / "darkit").chmod(0o755)
        script.check_installed(binaries, Path(folder), __version__)
        with pytest.raises(RuntimeError, match=rf"^The environment has darkit {__version__}, not darkit 99\.0\.0\.$"):
            script.check_installed(binaries, Path(folder), "99.0.0")
