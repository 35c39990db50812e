"""The documentation is true: its code and commands run, and its tables, names and links are correct."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from darkit import TrainerConfig
from darkit.errors import ConfigError
from tests.children import Zygote

CHECKOUT = Path(__file__).parents[1]
PAGES = (
    *("README.md", "README.zh.md"),
    *sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").rglob("*.md")),
)
CHINESE = [page for page in PAGES if page.endswith(".zh.md")]
GUIDES = ("docs/guide.md", "docs/guide.zh.md")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the number of its first line in the page, and its lines."""

    language: str
    line: int
    lines: tuple[str, ...]

    @property
    def file(self) -> str:
        """Return the path in a first line such as ``# configs/model/theirs.yaml``, whose content the block is."""
        found = re.fullmatch(r"# ([\w./-]+\.(?:py|yaml))", self.lines[0]) if self.lines else None
        return found[1] if found else ""

    @property
    def code(self) -> str:
        """Return the code without comments, which are in the page's language."""
        return "\n".join(re.sub(r"\s*(?<!\S)#.*$", "", line) for line in self.lines)


def blocks(page: str) -> list[Block]:
    found, start, language, lines = [], 0, "", []
    for number, line in enumerate((CHECKOUT / page).read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(\w*)", line)
        if fence and not start:
            start, language, lines = number + 1, fence[1], []
        elif fence:
            found.append(Block(language, start, tuple(lines)))
            start = 0
        elif start:
            lines.append(line)
    assert not start, f"a block of {page} is not closed"
    return found


def program(page: str, language: str) -> str:
    """Join all blocks of a language, each line at its number in the page, so that errors name that line."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == language:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.lines
    return "\n".join(lines) + "\n" if lines else ""


def pages_with(language: str) -> list[str]:
    """Return the pages with such blocks; of pages with the same code in several languages, the first."""
    first: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        codes = tuple(block.code for block in blocks(page) if block.language == language)
        if codes:
            first.setdefault(codes, page)
    return list(first.values())


def run(zygote: Zygote, command: list[str], page: str, folder: Path) -> None:
    """Run a page's program in a folder with nothing but the files that the page defines."""
    for block in blocks(page):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(block.lines) + "\n", encoding="utf-8")
    environment = os.environ | {"PATH": f"{zygote.commands}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=folder, env=environment
    )
    assert done.returncode == 0, f"{page}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.few(4)
@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs_from_top_to_bottom(page: str, folder: Path, zygote: Zygote) -> None:
    script = folder / "page.py"
    script.write_text(program(page, "python"), encoding="utf-8")
    run(zygote, [zygote.python, str(script)], page, folder)


@pytest.mark.few(1)
@pytest.mark.parametrize("page", pages_with("bash"))
def test_the_commands_of_a_page_run_from_top_to_bottom(page: str, folder: Path, zygote: Zygote) -> None:
    script = folder / "page.sh"
    script.write_text("set -eux\n" + program(page, "bash").removeprefix("\n"), encoding="utf-8")
    run(zygote, ["bash", str(script)], page, folder)


def test_the_readme_and_the_guides_have_code_to_run() -> None:
    assert "README.md" in pages_with("python")
    assert "README.md" in pages_with("bash")
    assert "docs/guide.md" in pages_with("python")
    assert "docs/guide.md" in pages_with("bash")


def outline(page: str) -> dict[str, list[str]]:
    """Return the parts of a page that must be the same in every language."""
    text = re.sub(r"^```.*?^```$", "", (CHECKOUT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#\s]+)", text)
    return {
        "code": [f"{block.language}\n{block.code}" for block in blocks(page)],
        "headings": re.findall(r"^#+(?= )", text, re.MULTILINE),
        "rows of tables": re.findall(r"^\|(?= )", text, re.MULTILINE),
        "tests": re.findall(r"`(?:[\w/]+/)?test_\w+\.py`", text),
        "links": sorted({link.replace(".zh.md", ".md") for link in links} - {page.replace(".zh.md", ".md")}),
    }


@pytest.mark.parametrize("page", CHINESE)
def test_a_page_is_the_same_in_both_languages(page: str) -> None:
    assert outline(page) == outline(page.replace(".zh.md", ".md"))


def test_the_pages_that_users_need_exist_in_both_languages() -> None:
    assert {Path(page).name.removesuffix(".zh.md") for page in CHINESE} >= {
        *("README", "guide", "data", "prediction", "dashboard", "reliability"),
    }


# The table of settings


def settings_table(page: str) -> dict[str, dict[str, str]]:
    """Return the rows of the table by setting: default, unit or choices, and range."""
    rows = re.findall(r"^\| `\w+` \|.*$", (CHECKOUT / page).read_text(encoding="utf-8"), re.MULTILINE)
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {
        name.strip("`"): {"default": default, "unit": unit, "range": limits} for name, default, unit, limits, _ in cells
    }


@pytest.mark.parametrize("page", GUIDES)
def test_the_table_lists_exactly_the_settings_with_their_defaults(page: str) -> None:
    table = settings_table(page)
    fields = dataclasses.fields(TrainerConfig)
    assert list(table) == [field.name for field in fields]
    for field in fields:
        shown = table[field.name]["default"].strip("`")
        words = {"None": ("none", "无"), "True": ("true",), "False": ("false",)}
        expected = words.get(str(field.default), (str(field.default),))
        assert shown in expected, field.name


@pytest.mark.parametrize("page", GUIDES)
def test_the_table_lists_the_smallest_accepted_values(page: str) -> None:
    checked = 0
    for name, row in settings_table(page).items():
        least = re.fullmatch(r"(?:at least|至少) (\d+)", row["range"])
        if least:
            checked += 1
            TrainerConfig(**{name: int(least[1])})
            with pytest.raises(ConfigError, match=name):
                TrainerConfig(**{name: int(least[1]) - 1})
    assert checked == 25


@pytest.mark.parametrize("page", GUIDES)
@pytest.mark.parametrize("name", ["device", "precision", "scheduler", "mode", "nan_policy"])
def test_the_table_lists_all_choices(page: str, name: str) -> None:
    choices = re.findall(r"`([\w-]+)`", settings_table(page)[name]["unit"])
    with pytest.raises(ConfigError) as refused:
        TrainerConfig(**{name: "no such choice"})
    assert f"one of {', '.join(choices)}, not" in str(refused.value)


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/models/")])
def test_the_page_of_a_model_lists_exactly_its_settings_with_their_defaults(page: str) -> None:
    module = importlib.import_module(f"darkit.models.{Path(page).stem}")
    (config,) = (found for name, found in vars(module).items() if name.endswith("Config"))
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (CHECKOUT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: yaml.safe_load(shown) for name, shown in rows} == {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(config)
    }


def test_every_model_has_a_page() -> None:
    choices = {path.stem for path in (CHECKOUT / "configs/model").glob("*.yaml")} - {"mymodel"}
    assert {Path(page).stem for page in PAGES if page.startswith("docs/models/")} == choices


# Names

HOUSE = ("docs/architecture.md", "docs/contributing.md")


@pytest.mark.parametrize("page", HOUSE)
def test_every_name_and_file_of_the_code_exists(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    names = re.findall(r"`(darkit(?:\.\w+)+)", text)
    files = re.findall(r"`((?:darkit|engine|runs|tests|configs)/[\w/.-]*)`", text)
    assert len(names) > 5 < len(files)
    for name in names:
        pkgutil.resolve_name(name)
    for file in files:
        assert (CHECKOUT / file).exists() or (CHECKOUT / "darkit" / file).exists() or "NAME" in file, file


ELSEWHERE = {"OSError", "Run.log()"}  # names in the table that their row only mentions


def test_the_table_of_modules_names_what_they_contain() -> None:
    text = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`darkit[^|]*) \| (.*) \|$", text.split("## Where to find it")[0], re.MULTILINE)
    assert len(rows) > 40
    for modules, content in rows:
        listed = re.findall(r"`([\w.]+)`", modules)
        owners = [pkgutil.resolve_name(name) for name in listed]
        for name in set(re.findall(r"`([A-Za-z_]\w*(?:\.\w+)?(?:\(\))?)`", content)) - ELSEWHERE:
            bare = name.removesuffix("()")
            if "." in bare:
                continue  # a file of a run
            inside = (importlib.util.find_spec(f"{module}.{bare}") for module in listed if is_package(module))
            assert any(hasattr(owner, bare) for owner in owners) or any(inside), f"{name} is not in {listed}"


def is_package(name: str) -> bool:
    return hasattr(importlib.import_module(name), "__path__")


def test_the_rooms_are_the_folders_of_the_package() -> None:
    text = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")
    (picture,) = re.findall(r"```\n(darkit, .*?)```", text, re.DOTALL)
    shown: set[str] = set()
    rooms: dict[int, str] = {0: ""}
    for indent, name in re.findall(r"^( *)([\w/]+)/ ", picture, re.MULTILINE):
        rooms[len(indent) + 2] = f"{rooms[len(indent)]}{name}/"
        shown.add(rooms[len(indent) + 2])
    package = CHECKOUT / "darkit"
    inits = (path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py"))
    assert shown == {f"{folder}/" for folder in inits if folder != "."}


# Links


def anchors(page: Path) -> set[str]:
    """Return the headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_have_existing_targets(page: str) -> None:
    path = CHECKOUT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        where = path.parent / file if file else path
        assert where.exists(), target
        assert not anchor or anchor in anchors(where), target
