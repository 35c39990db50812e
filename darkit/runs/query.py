"""The language in which runs are asked for, everywhere the same: ``lr=3e-4 val_loss<0.3 state:crashed``.

``docs/query.md`` describes it. A query is parsed once (`parse`) and matched against plain values (`Record`); it never
runs code, and a pattern that could take very long is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from darkit.errors import QueryError, nearest
from darkit.runs.query_values import KINDS, LIST, MOMENT, TEXT, Wanted, pattern_of
from darkit.runs.query_words import END, Term, Token, tokens

LONGEST = 1_000  # characters of a query
_DEEPEST = 50  # parentheses in each other
_NAMES = {"tag": "tags", "status": "state", "created": "started"}  # other words for the same field
_PARTS = ("config", "last", "best")  # where a name is looked for, as in the columns of the table of runs
_SOUGHT = ("name", "state", "project", "model", "device", "group", "note")  # by words without a field
_STATES = ("running", "stalled", "finished", "stopped", "crashed", "unknown")
_ORDERED = ("<", "<=", ">", ">=")

Test = Callable[["Record"], bool]


@dataclass(frozen=True)
class Record:
    """What a query can ask of one run.

    Attributes:
        fields: The run's own values by the names in `query_values.KINDS`; times in Unix seconds, durations in seconds.
        config: Its config values by flat keys, such as ``trainer.lr``.
        last: The last value of each metric.
        best: The best value of each metric that has one.
        words: Further text that words without a field are looked for in.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True)
class Query:
    """A query, ready to be matched.

    Attributes:
        text: As it was written.
        names: The names that it uses, of metrics and config keys, with their places in the text.
    """

    text: str
    names: Sequence[Term]
    _test: Test

    def matches(self, record: Record) -> bool:
        """Return whether a run is asked for. Raises `QueryError` where a pattern has taken too long."""
        return self._test(record)

    def check_names(self, config: Iterable[str], metrics: Iterable[str]) -> None:
        """Refuse a name that is neither a field nor a metric nor a config key of any run.

        Args:
            config: Every flat config key.
            metrics: Every metric.

        Raises:
            QueryError: With the place of the name.
        """
        keys, values = list(config), set(metrics)
        for term in self.names:
            part, name = _split(term.field)
            known = part in ("", "config") and any(_is_meant(key, name) for key in keys)
            if known or (part != "config" and name in values):
                continue
            existing = {*(key.rpartition(".")[2] for key in keys), *values, *KINDS}
            raise QueryError(f"No run has {name!r}. {nearest(name, existing)}.", term.start, term.start + term.length)


def parse(text: str, *, now: datetime | None = None) -> Query:
    """Read a query; an empty one asks for all runs.

    Args:
        text: The query.
        now: The time of the reader, for words such as ``yesterday``; by default that of this machine. Without a time
            zone it is in this machine's, which knows when its days are an hour longer or shorter.

    Raises:
        QueryError: It cannot be read; the error says where.
    """
    if len(text) > LONGEST:
        raise QueryError(f"A query has at most {LONGEST} characters, not {len(text)}.", LONGEST, len(text))
    parser = _Parser(text, now or datetime.now())
    return Query(text, parser.names, parser.read())


class _Parser:
    """Reads terms that must all hold, ``or``, ``not`` (also ``-``) and parentheses."""

    def __init__(self, text: str, now: datetime) -> None:
        self.names: list[Term] = []
        self._now = now
        self._tokens = tokens(text)
        self._token = next(self._tokens)

    def read(self) -> Test:
        test = self._any(0)
        if self._token.kind != END:
            raise QueryError("This ) closes nothing.", self._token.start, self._token.end)
        return test

    def _next(self) -> Token:
        token, self._token = self._token, next(self._tokens)
        return token

    def _any(self, depth: int) -> Test:
        tests = [self._all(depth)]
        while self._token.kind == "or":
            word = self._next()
            if self._token.kind in (END, ")", "or"):
                raise QueryError("Something must follow or.", word.start, word.end)
            tests.append(self._all(depth))
        return tests[0] if len(tests) == 1 else lambda record: any(test(record) for test in tests)

    def _all(self, depth: int) -> Test:
        tests = []
        if self._token.kind == "or":
            raise QueryError("Something must stand before or.", self._token.start, self._token.end)
        while self._token.kind not in (END, ")", "or"):
            if self._token.kind == "and":
                self._next()
                continue
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda record: all(test(record) for test in tests)

    def _one(self, depth: int) -> Test:
        token = self._next()
        if depth > _DEEPEST:
            raise QueryError("Too many parentheses in each other.", token.start, token.end)
        if token.kind == "not":
            if self._token.kind in (END, ")", "or", "and"):
                raise QueryError("Something must follow not.", token.start, token.end)
            inner = self._one(depth + 1)
            return lambda record: not inner(record)
        if token.kind == "(":
            inner = self._any(depth + 1)
            if self._token.kind == END:
                raise QueryError("This ( is not closed.", token.start, token.end)
            self._next()
            return inner
        return self._term(token.term)

    def _term(self, term: Term) -> Test:
        if not term.field:
            return _sought(term)
        name = _NAMES.get(term.field, term.field)
        kind = KINDS.get(name)
        if kind is None:
            self.names.append(term)
        found = (_by_pattern if term.sign.endswith("~") else self._compared)(term, name, kind)
        return (lambda record: not found(record)) if term.sign.startswith("!") else found

    def _compared(self, term: Term, name: str, kind: str | None) -> Test:
        ordered = term.sign in _ORDERED
        if ordered and kind in (TEXT, LIST):
            raise QueryError(f"{term.field} is text and has no {term.sign}; write = or ~.", term.start, term.end)
        if name == "state":
            _check_states(term)
        wanted = [Wanted.of(value, kind, term.sign, self._now) for value in term.values]
        if ordered and len(wanted) > 1:
            raise QueryError(f"Only one value can follow {term.sign}.", term.values[1].start, term.end)
        holds = _ordered(term.sign, kind) if ordered else _equal(term.sign, kind)
        return lambda record: any(holds(value, one) for value in _values(record, name, kind) for one in wanted)


def _check_states(term: Term) -> None:
    """Refuse a state that none is like, if one may be meant. Raises `QueryError`."""
    for value in term.values:
        text = value.text.casefold()
        suggestion = nearest(text, _STATES)
        known = "*" in text or any(text in state for state in _STATES)
        if not known and suggestion.startswith("Did you mean"):
            raise QueryError(f"{value.text!r} is no state. {suggestion}.", value.start, value.end)


def _sought(term: Term) -> Test:
    """Look for a word, or with slashes for a pattern, in what a run is called and what people say of it."""
    (value,) = term.values
    if value.pattern:
        found = pattern_of(value)
        return lambda record: any(map(found, _texts(record)))
    word = value.text.casefold()
    return lambda record: any(word in text.casefold() for text in _texts(record))


def _texts(record: Record) -> list[str]:
    own = [str(record.fields[name]) for name in _SOUGHT if record.fields.get(name)]
    return [*own, *record.fields.get("tags", ()), record.words]


def _by_pattern(term: Term, name: str, kind: str | None) -> Test:
    found = [pattern_of(value) for value in term.values]
    return lambda record: any(one(_text(value)) for value in _values(record, name, kind) for one in found)


def _values(record: Record, name: str, kind: str | None) -> Sequence[Any]:
    """Return what a run has under a name: of its own fields, else of its config, else of its metrics."""
    if kind is not None:
        value = record.fields.get(name)
        if kind == LIST:
            return value or ()
        return () if value is None or value == "" else (value,)
    part, name = _split(name)
    if part in ("", "config"):
        exact = [record.config[name]] if name in record.config else []
        found = exact or [value for key, value in record.config.items() if _is_meant(key, name)]
        if found or part:
            return found
    values = record.best if part == "best" else record.last
    return (values[name],) if values.get(name) is not None else ()


def _is_meant(key: str, name: str) -> bool:
    return key.endswith(name) and (len(key) == len(name) or key[-len(name) - 1] == ".")


def _split(name: str) -> tuple[str, str]:
    part, colon, rest = name.partition(":")
    return (part, rest) if colon and part in _PARTS else ("", name)


def _equal(sign: str, kind: str | None) -> Callable[[Any, Wanted], bool]:
    within = sign == ":" and kind in (TEXT, None)

    def holds(value: Any, wanted: Wanted) -> bool:
        if kind == MOMENT:
            return bool(wanted.low <= value < wanted.high or value == wanted.low)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return wanted.is_number(value)
        text = _text(value)
        if wanted.matches(text) or (within and wanted.text.casefold() in text.casefold()):
            return True
        return kind is None and wanted.is_number(text)

    return holds


def _ordered(sign: str, kind: str | None) -> Callable[[Any, Wanted], bool]:
    tests: dict[str, Callable[[float, Wanted], bool]] = {
        "<": lambda value, wanted: value < wanted.low,
        "<=": lambda value, wanted: value < wanted.high or value <= wanted.low,
        ">": lambda value, wanted: value >= wanted.low if wanted.high > wanted.low else value > wanted.low,
        ">=": lambda value, wanted: value >= wanted.low,
    }
    test = tests[sign]

    def holds(value: Any, wanted: Wanted) -> bool:
        number = value if kind is not None else _number(value)
        return number is not None and test(number, wanted)

    return holds


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
