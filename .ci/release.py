"""Prepare a release: set the version, date the changelog, build, and check what was built on every installed Python."""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHONS = ("python3.11", "python3.12", "python3.13")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)((a|b|rc)\d+)?")
_HEADING = re.compile(r"^## (\S+) \((.+)\)$", re.MULTILINE)
_CHECK = ("train", "model=mymodel", "trainer.max_step=2", "name=release")


def main(root: Path, words: list[str]) -> int:
    """Run the command; a refusal is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", nargs="?", default="", help="such as 0.2.0")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    parser.add_argument("--date", default=today, help="by default today")
    parser.add_argument("--no-build", action="store_true", help="only set the version and the date")
    arguments = parser.parse_args(words)
    try:
        kept = {path: path.read_text() for path in (root / "darkit" / "version.py", root / "CHANGELOG.md")}
        set_version(root, arguments.version, arguments.date)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if not arguments.no_build:
        try:
            check(root, build(root), arguments.version)
        except BaseException:
            for path, text in kept.items():
                path.write_text(text)
            raise
    tag = f"v{arguments.version}"
    print(f"Next: git commit -am 'Release {arguments.version}' && git tag {tag} && git push origin HEAD {tag}")
    return 0


def set_version(root: Path, version: str, date: str) -> None:
    """Write the version into `darkit/version.py`, and version and date into the changelog's unreleased section.

    Raises:
        ValueError: The version is none or was released before, there is nothing to release, or git has changes.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"Give a version such as 0.2.0, not {version!r}: make release VERSION=0.2.0")
    changes = _git(root, "status", "--porcelain")
    if changes:
        raise ValueError(f"Commit or stash these changes first:\n{changes}")
    changelog = (root / "CHANGELOG.md").read_text()
    headings = list(_HEADING.finditer(changelog))
    if not headings or headings[0][2] != "unreleased":
        raise ValueError("The first section of CHANGELOG.md must be '## VERSION (unreleased)'.")
    if version in [heading[1] for heading in headings[1:]]:
        raise ValueError(f"CHANGELOG.md has a released version {version} already.")
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    if not changelog[headings[0].end() : end].strip():
        raise ValueError("The unreleased section of CHANGELOG.md is empty.")
    file = root / "darkit" / "version.py"
    file.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', file.read_text()))
    dated = changelog[: headings[0].start()] + f"## {version} ({date})" + changelog[headings[0].end() :]
    (root / "CHANGELOG.md").write_text(dated)


def build(root: Path) -> list[Path]:
    """Build the source distribution, and from it the wheel, into an empty `dist`."""
    shutil.rmtree(root / "dist", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", root / "dist", root], check=True)
    return sorted((root / "dist").iterdir())


def check(root: Path, built: list[Path], version: str) -> None:
    """Install what was built into an empty environment of each installed Python, and train and predict there."""
    for python in filter(None, map(shutil.which, PYTHONS)):
        for archive in built:
            print(f"Checking {archive.name} with {python} ...", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
                binaries = Path(folder, "venv", "bin")
                install = [binaries / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
                subprocess.run([*install, "-c", root / "constraints.txt", archive], check=True)
                check_installed(binaries, Path(folder), version)


def check_installed(binaries: Path, folder: Path, version: str) -> None:
    """Use the darkit of an environment from an empty folder.

    Raises:
        RuntimeError: It is another version.
        subprocess.CalledProcessError: A command failed.
    """
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "DARWIN_KIT_HOME": str(folder / "home")}

    def darkit(*words: str) -> str:
        command = [str(binaries / "darkit"), *words]
        return subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    if (said := darkit("--version")) != f"darkit {version}":
        raise RuntimeError(f"The environment has {said}, not darkit {version}.")
    darkit(*_CHECK)
    darkit("verify", "release")
    darkit("predict", "release", f"[{list(range(12))}]")


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1], sys.argv[1:]))
