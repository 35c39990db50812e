"""The documentation site: it builds without a warning, and a broken link is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ZENSICAL = Path(sys.executable).with_name("zensical")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    subprocess.run([sys.executable, str(folder / "docs" / "stage.py")], check=True)
    command = [str(ZENSICAL), "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder / "build", capture_output=True, text=True, check=False)


def copied(folder: Path) -> Path:
    for name in ("docs", "darkit"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "README.zh.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_the_site_builds_with_the_readme_the_guides_and_the_api(tmp_path: Path) -> None:
    result = build(copied(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    site = tmp_path / "build" / "site"
    start = (site / "index.html").read_text()
    assert "found again by name" in start
    for page in ("index.zh", "guide.zh", "data.zh", "prediction.zh", "dashboard.zh", "reliability.zh"):
        assert (site / f"{page}.html").is_file()
        assert f'href="./{page}.html"' in start, "it is in the navigation"
    assert "save_step_interval" in (site / "api" / "darkit.html").read_text()
    assert "StepCheckpoint" in (site / "api" / "engine.html").read_text()


def test_a_link_to_a_page_or_an_anchor_that_does_not_exist_fails_the_build(tmp_path: Path) -> None:
    copied(tmp_path)
    page = tmp_path / "docs" / "data.md"
    before = page.read_text()
    for link in ("[there](nowhere.md)", "[there](guide.md#no-such-heading)"):
        page.write_text(f"{before}\n{link}\n")
        assert build(tmp_path).returncode != 0, link
