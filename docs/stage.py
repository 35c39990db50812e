"""Stage the pages of the documentation site below ``build/docs``: docs/, README.md as its start, and CHANGELOG.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
TARGET = BUILD / "docs"
PAGES = {"README.md": "index.md", "README.zh.md": "index.zh.md", "CHANGELOG.md": "changes.md"}
"""Pages outside of docs/ and their names on the site."""


def main() -> None:
    """Copy the pages and rewrite the links between them."""
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    shutil.copytree(ROOT / "docs", TARGET, ignore=shutil.ignore_patterns("*.py", "*.toml", "__pycache__"))
    for source, name in PAGES.items():
        if (ROOT / source).is_file():
            (TARGET / name).write_text((ROOT / source).read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copy(ROOT / "docs" / "zensical.toml", BUILD)
    for page in TARGET.rglob("*.md"):
        page.write_text(relink(page.read_text(encoding="utf-8")), encoding="utf-8")


def relink(text: str) -> str:
    """Point links to ``docs/...`` and to the pages at the top level to where they are on the site."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, name in PAGES.items():
        text = re.sub(rf"\]\((\.\./)?{re.escape(source)}", f"]({name}", text)
    return text


if __name__ == "__main__":
    main()
