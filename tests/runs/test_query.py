"""The language in which runs are asked for."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.errors import QueryError
from darkit.runs import query_values
from darkit.runs.query import Record, parse

NOW = datetime(2026, 11, 29, 15, 30, tzinfo=UTC)
TODAY = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
DAY, HOUR = 86400.0, 3600.0
RUN = Record(
    fields={
        "name": "gpt-Small-3",
        "state": "crashed",
        "project": "language",
        "model": "GPT",
        "step": 1200,
        "tags": ["paper", "two words"],
        "note": "warm restart (again)",
        "started": TODAY - 5 * HOUR,  # yesterday at 19:00
        "duration": 5400.0,
        "eta": None,
        "diverged": None,
    },
    config={"trainer.lr": 3e-4, "trainer.amp": True, "model.width": 64, "model.act": "relu", "trainer.resume": None},
    last={"val_loss": 0.25, "lr": 1e-6, "train/acc": 0.9, "odd": math.nan},
    best={"val_loss": 0.21},
    words="absturz",
)


def found(text: str, record: Record = RUN) -> bool:
    return parse(text, now=NOW).matches(record)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "small",
        "SMALL paper",
        '"two words"',
        "absturz",
        "lr=3e-4",
        "lr=0.0003",
        "trainer.lr=.0003",
        "config:lr=3.0e-4",
        "last:lr<1e-5",
        "lr=1e-2,3e-4",
        "lr = 3e-4",
        "lr > 1e-4 lr <1e-3 lr< 1e-3",
        "-lr > 0.01 (lr > 1e-4 or lr > 1)",
        'state: crashed name ~ /^gpt/ tag : "two words"',
        "started > 2026-11-28T18:59",
        "lr!=1e-2",
        "width>=64 width<=64",
        "width>63.5",
        "amp=true act=ReLU resume=none",
        "val_loss<0.3",
        "best:val_loss<0.22",
        "train/acc>0.5",
        '"train/acc">0.5',
        "odd=nan",
        "step>1k step<1_201 step=1200",
        "state:crashed",
        "status=Crashed",
        "state:crash",
        "tag:paper",
        'tag:"two words"',
        "tag:pap*",
        "tag=missing,paper",
        "name=gpt-*",
        "/small-[0-9]+$/",
        "name~/^gpt/",
        "name~gpt",
        "name!~/^mlp/",
        "model:gp",
        "started>yesterday",
        "started=yesterday",
        "started<today",
        "started=2026-11-28",
        "started>2026-11-28T18:59 started<2026-11-28T19:01",
        "started<=yesterday",
        "started>1d",
        "started<20h",
        "duration=1h30min",
        "duration>1h duration<5401",
        "-tag:draft",
        "not tag:draft",
        "tag:draft or state:crashed",
        "(tag:draft or tag:paper) and lr=3e-4",
        "not (tag:draft or lr=1)",
        "missing!=3",
    ],
)
def test_a_query_finds_the_run(text: str) -> None:
    assert found(text)


@pytest.mark.parametrize(
    "text",
    [
        "large",
        "small large",
        "lr=3e-5",
        "lr<1e-5",  # the config's, not the logged one
        "width>64",
        "val_loss<0.25",
        "best:val_loss<0.2",
        "best:lr<1",
        "odd<1",
        "odd>1",
        "lr > 0.01",
        "lr < 1e-4",
        "small :crashed",  # looked for as text
        "small ~/^gpt/",
        "state=crash",
        "state=elsewhere",
        "tag:pape",
        "name=gpt",
        "/^small/",
        "started=today",
        "started>today",
        "started<yesterday",
        "started>20h",
        "eta<1h",
        "diverged>0",
        "-small",
        "tag:draft or state:running",
        "missing=3",
        "act>3",
        "amp=1",
    ],
)
def test_a_query_does_not_find_the_run(text: str) -> None:
    assert not found(text)


@pytest.mark.parametrize(
    ("text", "start", "end", "part"),
    [
        ("lr=3e-4 val_loss<", 8, 17, "missing after val_loss<"),
        ("width<many", 6, 10, "number must follow <"),
        ("step=many", 5, 9, "number must follow ="),
        ("name<3", 0, 6, "is text"),
        ("a (b or c", 2, 3, "not closed"),
        ("a b) c", 3, 4, "closes nothing"),
        ('note:"open', 5, 10, "quotation mark is not closed"),
        ("/open", 0, 5, "second / is missing"),
        ("x /[a/", 2, 6, "cannot be read"),
        ("started>soon", 8, 12, "no time"),
        ("started=20261128", 8, 16, "no time"),
        ("started=2026-W48", 8, 16, "no time"),
        ("started=2026-11-28T14", 8, 21, "no time"),
        ("width<1_", 6, 8, "number must follow <"),
        ("duration>long", 9, 13, "no duration"),
        ("a or", 2, 4, "must follow or"),
        ("or a", 0, 2, "before or"),
        ("a not", 2, 5, "must follow not"),
        ("<3", 0, 2, "name must stand before"),
        ("a or > 3", 5, 6, "name must stand before >"),
        ("gpt state:crahsed", 10, 17, "'crahsed' is no state. Did you mean 'crashed'"),
        ("state!=crashed,Finishd", 15, 22, "'Finishd' is no state. Did you mean 'finished'"),
        ('lr = "a">3', 0, 4, "missing after lr ="),
        ("(lr > ) b", 1, 5, "missing after lr >"),
        ("gpt lr > many", 9, 13, "number must follow >"),
        ("gpt lr > ", 4, 8, "missing after lr >"),
        ("lr > width<64", 0, 4, "missing after lr >"),
        ("lr > or gpt", 0, 4, "missing after lr >"),
        ("lr => 3", 3, 5, "name must stand before =>"),
        ("lr<1,2", 5, 6, "Only one value"),
        ("(" * 60 + "a" + ")" * 60, 51, 52, "Too many parentheses"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, start: int, end: int, part: str) -> None:
    with pytest.raises(QueryError, match=part.replace("(", r"\(")) as caught:
        parse(text)
    assert (caught.value.start, caught.value.end) == (start, end)


def test_a_name_that_no_run_has_is_refused_with_its_place_and_a_suggestion() -> None:
    query = parse("state:crashed val_los<0.3")
    with pytest.raises(QueryError, match="Did you mean 'val_loss'") as caught:
        query.check_names(RUN.config, RUN.last)
    assert (caught.value.start, caught.value.end) == (14, 21)
    parse("lr=1 trainer.lr=1 config:width=3 best:val_loss<1 last:lr=2 tag:x").check_names(RUN.config, RUN.last)
    with pytest.raises(QueryError, match="No run has 'val_loss'"):
        parse("config:val_loss=1").check_names(RUN.config, RUN.last)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*$",
        "(a?){40}",
        "((a+)?)+",
        r"(a)\1+",
        "a*b*c*d*e",
        "a?" * 30,
        "(?#[)(a*)*",
        "(?x)a",
        "[[)]+(b+)*",
        "(.|..)" * 26 + "b",
        "(?:a|(?:b|.)(?:c|.))" * 10,
        "}?" * 30,
        "a?" * 7 + "a*a*a*b",
    ],
)
def test_patterns_that_could_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(QueryError, match=r"could take very long|cannot be read"):
        parse(f"/{pattern}/")


def test_allowed_patterns_are_quick_on_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_values, "_PATIENCE", 60.0)
    record = Record(fields={"note": "a" * 20_000})
    for pattern in ("a*a*a*b", "(?:ab)?a+b", "[^b]*b", r"(a+)?\db"):
        began = time.process_time()
        assert not parse(f"/{pattern}/").matches(record)
        assert time.process_time() - began < 20


def test_a_slow_pattern_is_given_up_after_some_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_values, "_PATIENCE", 0.05)
    query, quick = parse("x /a*a*a*b/"), Record(fields={"name": "x"})
    slow = Record(fields={"name": "x", "note": "a" * 120})
    with pytest.raises(QueryError, match=r"ended after 0\.05 seconds") as caught:
        for _ in range(50):
            query.matches(slow)
    assert (caught.value.start, caught.value.end) == (2, 11)
    again = parse("/x/")
    assert all(again.matches(quick) for _ in range(1000))


def assert_read_or_refused(text: str) -> None:
    error = None
    try:
        parse(text, now=NOW).matches(RUN)
    except QueryError as caught:
        error = caught
    assert error is None or 0 <= error.start <= error.end <= len(text)


@given(st.text(max_size=60))
def test_any_text_is_either_read_or_refused_at_a_place_within_it(text: str) -> None:
    assert_read_or_refused(text)


@given(st.lists(st.sampled_from(["lr", "=", "<", "3", "(", ")", "or", "not", "-", "/a/", '"', ":", ",", " ", "~"])))
def test_any_order_of_its_signs_is_either_read_or_refused(parts: list[str]) -> None:
    assert_read_or_refused("".join(parts))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_compared_as_numbers(value: float, wanted: float) -> None:
    record = Record(config={"trainer.x": value}, last={"y": value})
    for name in ("x", "y"):
        assert found(f"{name}<{wanted!r}", record) == (value < wanted)
        assert found(f"{name}<={wanted!r}", record) == (value <= wanted)
        assert found(f"{name}>{wanted!r}", record) == (value > wanted)
        assert found(f"{name}>={wanted!r}", record) == (value >= wanted)
        whole = all(one.is_integer() and abs(one) < 2**53 for one in (value, wanted))
        same = value == wanted if whole else math.isclose(value, wanted, rel_tol=1e-9)
        assert found(f"{name}={wanted!r}", record) == same
        assert found(f"{name}={value!r}", record)


@pytest.mark.parametrize(
    "seed", [4294967295, 2**53 + 1, 10**400, str(2**63 - 1)], ids=["32 bits", "54 bits", "huge", "text"]
)
def test_whole_numbers_are_compared_exactly_however_many_digits_they_have(seed: int | str) -> None:
    record = Record(fields={"step": seed}, config={"seed": seed, "betas": [0.9, 0.99]})
    assert found(f"seed={seed}", record)
    assert not found(f"seed={int(seed) - 1}", record)
    assert not found(f"seed={int(seed) - 1}", Record(config={"seed": str(seed)}))
    if isinstance(seed, int):
        assert found(f"step={seed} step!={seed - 1}", record)
    assert not found("betas<1", record), "a list is no number"


def test_no_second_before_a_day_and_every_second_of_a_minute_belongs_to_it() -> None:
    record = Record(fields={"started": TODAY - 0.5})
    assert found("started=yesterday -started=today", record)
    assert found("started=2026-11-28T23:59 started<=2026-11-28T23:59", record)
    assert found("-started=2026-11-28T23:58 started>2026-11-28T23:58 -started=2026-11-29T00:00", record)


@pytest.mark.parametrize("zone", ["", "Z", "+00:00", "-09:00"])
def test_a_time_with_a_zone_is_a_minute_too_and_one_with_seconds_a_second(zone: str) -> None:
    hour = "14" if zone == "-09:00" else "23"
    record = Record(fields={"started": TODAY - 0.5})
    assert found(f"started=2026-11-28T{hour}:59{zone} started=2026-11-28T{hour}:59:59{zone}", record)
    assert not found(f"started=2026-11-28T{hour}:59:58{zone} or started=2026-11-28T{hour}:59:59.25{zone}", record)
    assert found(f"started=2026-11-28T{hour}:59:59.5{zone}", record)


def test_text_that_is_nearly_a_number_is_text() -> None:
    record = Record(config={"tried": "1_", "seed": 10})
    assert found("tried=1_ -tried=1 seed=1_0", record)
    assert not found("seed=1__0 or seed=1_", record)


def test_a_day_of_the_other_half_of_the_year_begins_at_midnight_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        record = Record(fields={"started": datetime(2026, 7, 1, 23, 30).timestamp()})
        query = parse("started=2026-07-01 started<2026-07-02", now=datetime(2026, 11, 29, 12))
        assert query.matches(record)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(min_size=1, max_size=30))
def test_quoted_text_is_taken_as_it_is(text: str) -> None:
    record = Record(fields={"name": f"before {text} after", "tags": [text]}, config={"a.b": text})
    quoted = '"' + text.replace('"', '""') + '"'
    for query in (quoted, f"tag={quoted}", f"b={quoted}", f"name:{quoted}", f"name~{quoted}"):
        assert found(query, record), query


_WORDS = st.sampled_from(["small", "large", "lr=3e-4", "lr=1", "tag:paper", "tag:draft", "/gpt/", "step>5"])


@given(st.recursive(_WORDS, lambda inner: st.tuples(st.sampled_from(["and", "or", "not"]), inner, inner)))
def test_and_or_not_and_parentheses_follow_logic(tree: Any) -> None:
    def written(node: Any) -> str:
        if isinstance(node, str):
            return node
        kind, first, second = node
        return f"not ({written(first)})" if kind == "not" else f"({written(first)} {kind} {written(second)})"

    def true(node: Any) -> bool:
        if isinstance(node, str):
            return node in ("small", "lr=3e-4", "tag:paper", "/gpt/", "step>5")
        kind, first, second = node
        if kind == "not":
            return not true(first)
        return true(first) and true(second) if kind == "and" else true(first) or true(second)

    assert found(written(tree)) == true(tree)


@given(st.integers(0, 40 * 24))
def test_a_day_is_all_of_it_in_the_time_of_the_reader(hours: int) -> None:
    started = NOW - timedelta(hours=hours)
    record = Record(fields={"started": started.timestamp()})
    day = started.date()
    assert found(f"started={day}", record)
    assert found(f"started>={day} started>{day - timedelta(days=1)} started<{day + timedelta(days=1)}", record)
    assert found("started=today", record) == (day == NOW.date())
