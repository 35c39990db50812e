"""What is wrong with a query, in the language of the page."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path

import darkit.runs
from darkit.dashboard.reading.asked import asked
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.dashboard.texts.zh_query import chinese_problem
from tests.dashboard.parts import make_run


def sentences() -> list[str]:
    """Return every sentence with which a query is refused, with a 7 for each value in it."""
    found = []
    for path in Path(darkit.runs.__file__).parent.glob("query*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "QueryError":
                said = node.args[0]
                parts = said.values if isinstance(said, ast.JoinedStr) else [said]
                found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in parts))
    return found


def is_chinese(sentence: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in sentence)


def test_every_sentence_about_a_query_is_said_in_chinese_with_its_values() -> None:
    assert len(sentences()) > 20
    assert [said for said in sentences() if not is_chinese(chinese_problem(said))] == []
    assert [said for said in sentences() if said.count("7") > chinese_problem(said).count("7")] == []
    assert chinese_problem("Something else.") == "Something else."


def test_an_unknown_name_is_refused_in_both_languages_with_a_suggestion() -> None:
    problem = asked("val_los<1", [], ["trainer.lr"], ["val_loss"], 0)["problem"]
    assert "Did you mean 'val_loss'? Available: " in problem["message"]
    assert problem["zh"].startswith("没有运行有 'val_los'。是不是 'val_loss'？可用：")
    assert "more" not in problem["zh"]
    problem = asked("state:crahsed", [], [], [], 0)["problem"]
    assert problem["zh"].startswith("'crahsed' 不是状态。是不是 'crashed'？可用：")


def test_a_day_of_a_query_is_that_of_the_reader_in_summer_and_winter(home: Path) -> None:
    for name, month in (("summer", 7), ("winter", 1)):
        late = datetime(2025, month, 1, 22, 30, tzinfo=UTC).timestamp()  # the next day in Berlin's summer alone
        make_run(home / "base", name, 3, started=late)
    _, entries = Library(home / "base", LogCache()).entries()
    for offset in (60, 120):  # of today
        found = [asked(f"started:2025-0{month}-02", entries, [], [], offset, "Europe/Berlin") for month in (7, 1)]
        assert [one["matching"] for one in found] == [["summer"], []]
